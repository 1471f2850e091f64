"""Imported by TRL's client of a vLLM server; nothing here is called."""


def get_ip() -> str:
    raise NotImplementedError
