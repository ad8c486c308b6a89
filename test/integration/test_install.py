"""dev/install, with an apt-get that is none: what it leaves of the settings of the system."""
import os
import signal
import subprocess

import pytest

import harness as h

SETTING = "/etc/postgresql-common/createcluster.d"


def take_signals():
    """As in a terminal: tests in the background of a shell begin with SIGINT ignored, below nohup with SIGHUP."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


class Install:
    """A copy of the script that has its own packages, settings and commands."""

    def __init__(self, directory):
        self.dir, self.commands = str(directory), os.path.join(directory, "commands")
        self.settings = os.path.join(directory, "createcluster.d")
        self.dropin = os.path.join(self.settings, "bough-install.conf")
        self.seen = os.path.join(directory, "seen")
        os.mkdir(self.commands)
        with open(os.path.join(h.ROOT, "dev/install"), encoding="utf-8") as f:
            text = f.read()
        assert SETTING in text
        self.write("install", text.replace(SETTING, self.settings))
        self.write("packages", "build  postgresql  /nowhere/initdb\n")
        self.write("commands/dpkg-query", "#!/bin/sh\nexit 1\n")
        self.write("commands/id", "#!/bin/sh\necho 0\n")

    def write(self, name, text):
        path = os.path.join(self.dir, name)
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
        os.chmod(path, 0o755)

    def apt_get(self, then):
        """It notes what the setting is, and then does that."""
        self.write("commands/apt-get", f"#!/bin/sh\ncp '{self.dropin}' '{self.seen}.new' && mv '{self.seen}.new' "
                                       f"'{self.seen}'\n{then}\n")

    def start(self):
        env = os.environ | {"PATH": f"{self.commands}:{os.environ['PATH']}", "TMPDIR": self.dir}
        return subprocess.Popen([os.path.join(self.dir, "install"), "build"], env=env, stdin=subprocess.DEVNULL,
                                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
                                preexec_fn=take_signals)

    def setting(self):
        if not os.path.exists(self.dropin):
            return None
        with open(self.dropin, encoding="ascii") as f:
            return f.read()

    def interrupted_by(self, number):
        """Send a signal to all of it while it installs; its end."""
        self.apt_get("exec sleep 1000")
        running = self.start()
        try:
            h.wait_for(lambda: os.path.exists(self.seen), "it installs")
            os.killpg(running.pid, number)
            return running.wait(30)
        finally:
            if running.poll() is None:
                os.killpg(running.pid, signal.SIGKILL)
                running.wait()


@pytest.fixture
def install(directory):
    return Install(directory)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda n: n.name)
def test_a_signal_leaves_no_setting_behind(install, number):
    assert install.interrupted_by(number) == -number
    assert install.setting() is None
    assert not [name for name in os.listdir(install.dir) if name.startswith("tmp")]


def test_the_setting_is_there_while_it_installs_and_gone_at_the_end(install):
    install.apt_get("exit 0")
    assert install.start().wait(30) == 0
    assert install.setting() is None
    with open(install.seen, encoding="ascii") as f:
        assert "\ncreate_main_cluster = false\n" in f.read()


@pytest.mark.parametrize("is_there", [False, True], ids=["missing", "installed"])
def test_what_was_left_all_the_same_goes_with_the_next_run(install, is_there):
    assert install.interrupted_by(signal.SIGKILL) == -signal.SIGKILL
    assert "create_main_cluster" in install.setting()
    if is_there:
        install.write("packages", "build  postgresql  sh\n")
    install.apt_get("exit 0")
    assert install.start().wait(30) == 0
    assert install.setting() is None


def test_a_setting_of_somebody_else_stays(install):
    os.mkdir(install.settings)
    install.write("createcluster.d/bough-install.conf", "create_main_cluster = false\n")
    install.apt_get("exit 0")
    assert install.start().wait(30) == 0
    assert install.setting() == "create_main_cluster = false\n"


def test_a_setting_of_a_run_under_way_stays(install):
    """The other one removes it."""
    text = f"# of dev/install, process {os.getpid()}\ncreate_main_cluster = false\n"
    os.mkdir(install.settings)
    install.write("createcluster.d/bough-install.conf", text)
    install.apt_get("exit 0")
    assert install.start().wait(30) == 0
    assert install.setting() == text
