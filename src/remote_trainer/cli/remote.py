"""The commands for runs on other machines. Needs neither torch nor Ray here."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from remote_trainer.cli.arguments import (
    ConfigArgument,
    JsonOption,
    SetOption,
    StorageOption,
    WorkersOption,
    as_path,
)
from remote_trainer.cli.output import say, say_json
from remote_trainer.errors import EXIT_FAILED, UserInputError

if TYPE_CHECKING:
    from remote_trainer.remote.jobs import Job, JobsClient

AddressOption = Annotated[
    str | None,
    typer.Option(
        metavar="URL", envvar="RAY_API_SERVER_ADDRESS", help="Dashboard of a Ray cluster."
    ),
]
HostOption = Annotated[
    str | None,
    typer.Option(metavar="USER@MACHINE", help="A machine with Ray, reached by an SSH tunnel."),
]
PortOption = Annotated[int, typer.Option(help="Port of the dashboard on the machine.")]
JobArgument = Annotated[
    str | None, typer.Argument(metavar="JOB", help="Without it: the newest job.")
]
MachineArgument = Annotated[str, typer.Argument(metavar="USER@MACHINE")]
VenvOption = Annotated[
    str | None,
    typer.Option(metavar="DIR", help="Virtual environment there, with the extras train and ray."),
]
PORT = 8265


def submit(
    config: ConfigArgument,
    address: AddressOption = None,
    host: HostOption = None,
    port: PortOption = PORT,
    set_: SetOption = None,
    workers: WorkersOption = None,
    storage: StorageOption = None,
    on_done: Annotated[
        str | None,
        typer.Option(
            metavar="COMMAND", help="Shell command for the machine when the run has ended."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Send a config with its data to a cluster and train there; returns at once."""
    # Imported here to keep --help fast.
    from remote_trainer.config import load_config
    from remote_trainer.remote.submit import submit as submit_config

    stored = [] if storage is None else [f"distributed.storage={storage}"]
    overrides = [*(set_ or []), *stored]
    settings = load_config(config, overrides)
    with _client(address, host, port) as client:
        job = submit_config(client, config, settings, overrides, workers, on_done)
    if as_json:
        say_json({"job": job.id, "status": job.status, **job.metadata})
        return
    say(f"{job.id}: {job.status}\nrun folder there: {job.metadata['output_dir']}")
    say(f"follow it with: remote-trainer logs {job.id} --follow {_where(address, host)}")


def status(
    job: JobArgument = None,
    address: AddressOption = None,
    host: HostOption = None,
    port: PortOption = PORT,
    as_json: JsonOption = False,
) -> None:
    """Show a job, or all jobs."""
    with _client(address, host, port) as client:
        jobs = client.jobs() if job is None else [client.job(job)]
    if as_json:
        say_json([_as_json(each) for each in jobs])
        return
    for each in jobs:
        say(f"{each.id}  {each.status}  {each.message}".rstrip())
    if not jobs:
        say("no jobs")


def logs(
    job: JobArgument = None,
    address: AddressOption = None,
    host: HostOption = None,
    port: PortOption = PORT,
    follow: Annotated[bool, typer.Option("--follow", help="Until the job ends.")] = False,
) -> None:
    """Show what a job has printed. Ctrl-C ends this command, not the job."""
    # Imported here to keep --help fast.
    from remote_trainer.remote.submit import find_job, follow_logs

    with _client(address, host, port) as client:
        job_id = find_job(client, job).id
        if not follow:
            typer.echo(client.logs(job_id), nl=False)
            return
        for text in follow_logs(client, job_id):
            typer.echo(text, nl=False)
        ended = client.job(job_id)
    if ended.status != "SUCCEEDED":
        say(f"{ended.id}  {ended.status}  {ended.message}")
        raise typer.Exit(EXIT_FAILED)


def stop(
    job: JobArgument = None,
    address: AddressOption = None,
    host: HostOption = None,
    port: PortOption = PORT,
) -> None:
    """Stop a job after a checkpoint, and wait for it."""
    # Imported here to keep --help fast.
    from remote_trainer.remote.submit import find_job
    from remote_trainer.remote.submit import stop as stop_job

    with _client(address, host, port) as client:
        ended = stop_job(client, find_job(client, job).id)
    say(f"{ended.id}  {ended.status}  {ended.message}".rstrip())


def fetch(
    job: JobArgument = None,
    address: AddressOption = None,
    host: HostOption = None,
    port: PortOption = PORT,
    output: Annotated[
        Path | None,
        typer.Option(metavar="DIR", parser=as_path, help="Run folder here; default: runs/JOB."),
    ] = None,
) -> None:
    """Bring a run folder here, also of a run that is still going; verifies every file."""
    # Imported here to keep --help fast.
    from remote_trainer.remote.fetch import fetch as fetch_folder
    from remote_trainer.remote.submit import find_job, source_of

    with _client(address, host, port) as client:
        found = find_job(client, job)
    target = output or Path("runs") / found.id
    count = fetch_folder(source_of(found, host), target)
    say(f"{target}: {count} file{'s' if count != 1 else ''} brought, all verified")


def up(machine: MachineArgument, venv: VenvOption = None, port: PortOption = PORT) -> None:
    """Start Ray on a machine: with a token, and reachable by SSH only."""
    # Imported here to keep --help fast.
    from remote_trainer.remote.ssh import Machine
    from remote_trainer.remote.ssh import up as start

    start(Machine.parse(machine), venv, port)
    say(f"{machine}: Ray runs; submit with --host {machine}")


def down(machine: MachineArgument, venv: VenvOption = None) -> None:
    """Stop Ray on a machine, with all its jobs."""
    # Imported here to keep --help fast.
    from remote_trainer.remote.ssh import Machine
    from remote_trainer.remote.ssh import down as end

    end(Machine.parse(machine), venv)
    say(f"{machine}: Ray is stopped")


@contextmanager
def _client(address: str | None, host: str | None, port: int) -> "Iterator[JobsClient]":
    """The jobs of the cluster that the options name."""
    # Imported here to keep --help fast.
    from remote_trainer.remote.jobs import JobsClient
    from remote_trainer.remote.ssh import Machine
    from remote_trainer.remote.token import find_token

    if host is not None:
        machine = Machine.parse(host)
        token = machine.token()
        with machine.tunnel(port) as end:
            yield JobsClient(end, token)
    elif address is not None:
        yield JobsClient(address, find_token(os.environ))
    else:
        raise UserInputError.at(
            "--address", "is missing; write --address http://HOST:8265 or --host user@machine"
        )


def _where(address: str | None, host: str | None) -> str:
    return f"--host {host}" if host else f"--address {address}"


def _as_json(job: "Job") -> dict[str, object]:
    return {
        "job": job.id,
        "status": job.status,
        "message": job.message,
        "metadata": dict(job.metadata),
    }
