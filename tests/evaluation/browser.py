"""A headless Chromium: what a page looks like to a browser, what it complains of, and what it asks the network for."""

import json
import shutil
import subprocess

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER = "not an origin"
"""Who asks, in the log, where the browser asks for its own sake: for updates, the time."""
QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
)


def chromium():
    """The browser's path; skips the test where there is none."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser: install chromium to open reports in one (looked for {', '.join(NAMES)})")
    return found


def visit(page, folder, *, width=1200):
    """(document after its scripts ran, complaints on the console, addresses that were asked for)."""
    log = folder / "net.json"
    command = [
        chromium(), *QUIET, "--enable-logging=stderr", f"--user-data-dir={folder / 'profile'}", f"--log-net-log={log}",
        "--host-resolver-rules=MAP * ~NOTFOUND", f"--window-size={width},1400", "--virtual-time-budget=20000",
        "--dump-dom", page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    complaints = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return done.stdout, complaints, _asked(log)


def _asked(log):
    """Addresses that the page asked for, not the browser for itself; a stopped browser may leave its log without an end."""
    text = log.read_text().rstrip().rstrip(",")
    try:
        events = json.loads(text)["events"]
    except json.JSONDecodeError:
        events = json.loads(text + "]}")["events"]
    told = [event.get("params", {}) for event in events]
    return sorted({about["url"] for about in told if "url" in about and about.get("initiator", BROWSER) != BROWSER})


def print_to(page, target, folder):
    """Print the page as PDF."""
    command = [
        chromium(), *QUIET, f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=20000",
        "--no-pdf-header-footer", f"--print-to-pdf={target}", page.as_uri(),
    ]  # fmt: skip
    subprocess.run(command, capture_output=True, timeout=120, check=True)
    return target
