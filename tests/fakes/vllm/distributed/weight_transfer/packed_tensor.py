"""Imported by TRL's client of a vLLM server; nothing here is called."""


def packed_nccl_broadcast_producer() -> None:
    raise NotImplementedError
