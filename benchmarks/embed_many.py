"""``python -m benchmarks.embed_many``: 2,000 songs, killed and stopped on the way, in flat memory.

Every file is a short song with a tag of its own at the end, so that all contents differ. The
command line runs in another process, whose memory, with that of its workers, is printed at
intervals. It is killed after a quarter, stopped with Ctrl-C after a half, and goes on each time.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from benchmarks.embed_songs import cut_songs
from benchmarks.machine import print_machine
from retrieval.data.demo_catalog import demo_manifest
from retrieval.pipeline.shards import RUN, read_rows, verify

ID3_BYTES = 128


def write_songs(folder: Path, song: bytes, suffix: str, count: int) -> None:
    """Copies of a song that differ in a tag at the end, which decoders pass over."""
    for i in range(count):
        tag = (b"TAG" + f"number {i}".encode()).ljust(ID3_BYTES, b"\0")
        (folder / f"{i:05d}{suffix}").write_bytes(song + tag)


def memory_mb(pid: int) -> tuple[float, float]:
    """Resident memory of a process, and of its children."""
    sizes = {}
    for path in Path("/proc").glob("[0-9]*/status"):
        try:
            facts = dict(line.split(":", 1) for line in path.read_text().splitlines())
        except (OSError, ValueError):
            continue  # it has just ended
        if "VmRSS" in facts:
            own = int(facts["Pid"]), int(facts["PPid"])
            sizes[own] = int(facts["VmRSS"].split()[0]) / 1024
    return (
        sum(size for (own, _), size in sizes.items() if own == pid),
        sum(size for (_, parent), size in sizes.items() if parent == pid),
    )


def songs_done(out: Path) -> int:
    """Songs in the folder so far."""
    return len(read_rows(out)) if (out / RUN).exists() else 0


def _heed_ctrl_c() -> None:
    """In the new process: where this one was started in the background, Ctrl-C is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def run(songs: Path, out: Path, stop_at: int | None, how: int, every_s: float) -> list[float]:
    """Run the command, to the end or until it is stopped; returns memory in MB at intervals."""
    command = [sys.executable, "-m", "retrieval.embed", str(songs), str(out)]
    process = subprocess.Popen(command, start_new_session=True, preexec_fn=_heed_ctrl_c)
    before, memory = songs_done(out), []
    shown = before
    start = time.monotonic()
    while process.poll() is None:
        time.sleep(every_s)
        done = songs_done(out)
        if done > shown and process.poll() is None:
            shown = done
            own, workers = memory_mb(process.pid)
            rate = 3600 * (done - before) / (time.monotonic() - start)
            print(
                f"  {done:6} songs  {own:7.0f} MB, workers {workers:6.0f} MB  {rate:8,.0f} songs/h"
            )
            memory.append(own + workers)
        if stop_at is not None and done >= stop_at:
            process.send_signal(how)
            process.wait()
    print(f"  ended with status {process.returncode}")
    return memory


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and check; returns 0 where nothing was lost or repeated and memory stayed flat."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.embed_many", description=__doc__)
    parser.add_argument("--count", type=int, default=2000, help="how many songs (2000)")
    parser.add_argument("--seconds", type=float, default=12.0, help="length of each (12)")
    parser.add_argument("--songs", type=Path, default=demo_manifest().parent / "audio",
                        help="folder whose first song is taken (the demo pieces)")  # fmt: skip
    parser.add_argument("--every", type=float, default=10.0, help="seconds between lines (10)")
    args = parser.parse_args(arguments)
    print_machine("torch", "av")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        songs, out = folder / "songs", folder / "out"
        songs.mkdir()
        (song,) = cut_songs(args.songs, 1, args.seconds, folder)
        write_songs(songs, song.read_bytes(), song.suffix, args.count)
        print("killed after a quarter:")
        run(songs, out, args.count // 4, signal.SIGKILL, 0.2)
        print("stopped after a half:")
        run(songs, out, args.count // 2, signal.SIGINT, 0.2)
        print("to the end:")
        memory = run(songs, out, None, 0, args.every)
        return check(out, args.count, memory)


def check(out: Path, count: int, memory: list[float]) -> int:
    """Print what there is, and how much memory grew over the second half of the last run."""
    rows = read_rows(out)
    places = Counter((row.shard, row.start) for row in rows)
    repeated = sum(times - 1 for times in places.values())
    print(f"{len(rows)} of {count} songs, {repeated} repeated, {verify(out)} shards whole")
    half = memory[len(memory) // 2 :]
    growth = (half[-1] - half[0]) / half[0] if half else 0.0
    print(f"memory over the second half: {100 * growth:+.1f} %")
    return 0 if len(rows) == count and not repeated and growth < 0.05 else 1


if __name__ == "__main__":
    sys.exit(main())
