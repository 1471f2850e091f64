"""Imported by TRL's client of a vLLM server; nothing here is called."""


def trainer_init() -> None:
    raise NotImplementedError
