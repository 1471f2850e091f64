"""Disables telemetry of the dependencies before they are imported."""

import os
from collections.abc import Mapping, MutableMapping

SWITCHES: Mapping[str, str] = {
    # huggingface_hub and all that stands on it; TRL tells a trainer's kind, its architecture and
    # the device whenever one is made.
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DISABLE_TELEMETRY": "1",
    # Read by huggingface_hub, vLLM and others (https://donottrack.sh).
    "DO_NOT_TRACK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_DO_NOT_TRACK": "1",
    # Unsloth would fetch a file from the hub to count its users.
    "UNSLOTH_DISABLE_STATISTICS": "1",
    # wandb's reports of its own errors; what it logs goes where its user sends it.
    "WANDB_ERROR_REPORTING": "false",
    # trackio's pages are Gradio's.
    "GRADIO_ANALYTICS_ENABLED": "False",
}
"""Environment variables with the value that disables telemetry."""


def send_no_usage_data(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set every switch that the user has not set; child processes inherit them.

    Most libraries read theirs when they are imported, so this comes first.
    """
    for name, value in SWITCHES.items():
        environment.setdefault(name, value)
