"""A RabbitMQ of a test's own."""

import os
import shutil
import subprocess
import uuid
from pathlib import Path

from tests.support.brokers.amqp_handshake import wait_for_amqp
from tests.support.brokers.epmd import Epmd
from tests.support.brokers.process import Server
from tests.support.ports import free_port

_CTL_SECONDS = 120.0
_COOKIE = "tests-of-prefactor-core"

# Debian's command in the path changes to the system's own user and folders; this is what it runs in the end.
_DEBIAN = Path("/usr/lib/rabbitmq/bin")


class CtlError(Exception):
    """rabbitmqctl did not do what it was asked for."""


def rabbitmq_program(name: str) -> str | None:
    """Return the path of a program of RabbitMQ; None if it is not installed."""
    return shutil.which(name, path=f"{_DEBIAN}{os.pathsep}{os.environ.get('PATH', os.defpath)}")


class RabbitServer(Server):
    """One RabbitMQ without plugins; its data outlives the process, so it can be killed and started again.

    Args:
        folder: Where it keeps everything; made if need be.
        config: Lines for its ``rabbitmq.conf``.
        epmd: The name server that it shares with others, whose owner starts and ends it; else it has its own.
    """

    def __init__(self, folder: Path, *config: str, epmd: Epmd | None = None) -> None:
        super().__init__(folder)
        self.node = f"test-{uuid.uuid4().hex[:12]}@localhost"
        self._own_epmd = epmd is None
        self._epmd = epmd or Epmd(folder / "epmd")
        self._alarmed = False
        self._env = self._environment(free_port())
        self._write_files(config)

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    def launch(self) -> None:
        """Start its process, without waiting."""
        program = rabbitmq_program("rabbitmq-server")
        if program is None:
            raise FileNotFoundError("rabbitmq-server is not installed")
        if self._own_epmd:
            self._epmd.start()
        self._alarmed = False
        self.spawn([program], self._env)

    def wait_ready(self, seconds: float = 180.0) -> None:
        """Wait until one can log in."""
        wait_for_amqp("127.0.0.1", self.port, seconds=seconds, process=self)

    def kill(self) -> None:
        """End it as a crash would, but not before it knows its queues.

        For a second, longer on a slow disk, a node keeps the name of a new quorum queue in memory alone.
        After a crash it has the messages on disk and does not know whose they are: the queue is there, never
        has a leader, and takes nothing ever again. That is a defect of that server, and not what is tested.
        """
        if self.up:
            self.ctl("eval", "[dets:sync(Table) || Table <- dets:all()].")
        super().kill()

    def close(self) -> None:
        """End it for good, and its name server too."""
        super().kill()
        if self._own_epmd:
            self._epmd.kill()

    def memory_alarm(self, *, on: bool) -> None:
        """Make it believe that no memory is left, so that it blocks all who publish; or take that back."""
        self._alarmed = on
        self.ctl("set_vm_memory_high_watermark", *(["absolute", "1"] if on else ["0.4"]))

    def heal(self) -> None:
        """Let it go on, or start it again, and end an alarm, whatever a test has done to it."""
        super().heal()
        if self._alarmed:
            self.memory_alarm(on=False)

    def ctl(self, *words: str, seconds: float = _CTL_SECONDS) -> str:
        """Run ``rabbitmqctl`` for this node, such as ``ctl("list_queues", "name", "messages")``.

        Returns:
            What it wrote: a line per row, without headings, columns apart by tabs.

        Raises:
            CtlError: It failed, or took longer than ``seconds``.
        """
        program = rabbitmq_program("rabbitmqctl")
        if program is None:
            raise FileNotFoundError("rabbitmqctl is not installed")
        command = [program, "--node", self.node, "--quiet", *words]
        if words[0].startswith("list_"):
            command.append("--no-table-headers")
        try:
            done = subprocess.run(
                command,
                check=False,
                env=self._env,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=seconds,
            )
        except subprocess.TimeoutExpired as error:
            raise CtlError(f"rabbitmqctl {' '.join(words)}: nothing in {seconds:.0f} s") from error
        if done.returncode != 0:
            raise CtlError(f"rabbitmqctl {' '.join(words)}: {done.stdout}{done.stderr}")
        return done.stdout

    def _environment(self, distribution_port: int) -> dict[str, str]:
        """Return an environment in which nothing of the machine's own RabbitMQ is found."""
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("RABBITMQ_", "ERL_", "LC_"))
        }
        folder = self.folder
        return {
            **inherited,
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            # A node would start a name server that outlives it, by a process that outlives it too.
            "ERL_FLAGS": "-start_epmd false",
            "ERL_EPMD_PORT": str(self._epmd.port),
            "ERL_CRASH_DUMP_SECONDS": "0",
            "ERL_INETRC": str(folder / "inetrc"),
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_DIST_PORT": str(distribution_port),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "rabbitmq-env.conf"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_CONFIG_FILES": str(folder / "conf.d"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            # With input allowed the script becomes the server, where else it would stay as its parent: a
            # signal then meets the one process that matters. The server itself still reads nothing.
            "RABBITMQ_ALLOW_INPUT": "true",
            "RABBITMQ_SERVER_START_ARGS": "-noinput",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 -kernel inet_dist_use_interface {127,0,0,1}",
        }

    def _write_files(self, config: tuple[str, ...]) -> None:
        for name in ("data", "log", "conf.d"):
            (self.folder / name).mkdir(exist_ok=True)
        lines = [
            f"listeners.tcp.local = 127.0.0.1:{self.port}",
            "disk_free_limit.absolute = 1MB",  # an alarm is for the test that asks for one
            *config,
        ]
        (self.folder / "rabbitmq.conf").write_text("\n".join(lines) + "\n")
        (self.folder / "rabbitmq-env.conf").write_text("")
        (self.folder / "advanced.config").write_text("[].\n")
        (self.folder / "enabled_plugins").write_text("[].\n")
        # With this no node asks the system for addresses, which takes a helper process of each.
        (self.folder / "inetrc").write_text('{lookup, [file]}.\n{host, {127,0,0,1}, ["localhost"]}.\n')
        cookie = self.folder / ".erlang.cookie"
        cookie.unlink(missing_ok=True)
        cookie.write_text(_COOKIE)
        cookie.chmod(0o400)  # Erlang takes no other
