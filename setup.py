"""Builds the native kernel where there is a C compiler; everything else is in setup.cfg."""

import importlib.util
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

HERE = Path(__file__).parent.resolve()


def _sources():
    """`kerasbn.kernels.native.sources`, without importing kerasbn and so Keras."""
    path = HERE / "kerasbn" / "kernels" / "native" / "sources.py"
    spec = importlib.util.spec_from_file_location("sources", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class BuildLibrary(build_ext):
    """Builds a library that is no Python module, so that its name has no Python version."""

    def get_ext_filename(self, fullname):
        """Returns the path of the library."""
        return f"{fullname.replace('.', '/')}.so"


class PlatformWheel(bdist_wheel):
    """Makes one wheel for all versions of Python, since the library uses nothing of Python."""

    def get_tag(self):
        """Returns the tags for Python, its binary interface and the platform."""
        return "py3", "none", super().get_tag()[2]


sources = _sources()
folder = sources.FOLDER.relative_to(HERE)  # setuptools wants relative paths
library = Extension(
    "kerasbn.kernels.native.library",
    [str(folder / name) for name in sources.COMPILED],
    depends=[str(path) for path in sorted(folder.glob("*.h"))],
    define_macros=[("KERASBN_SOURCES", f'"{sources.fingerprint()}"')],
    extra_compile_args=list(sources.COMPILER_FLAGS),
    extra_link_args=list(sources.LINKER_FLAGS),
    optional=True,  # if it can't be built, the install goes on without it
)
setup(
    ext_modules=[library] if sources.SUPPORTED else [],
    cmdclass={"build_ext": BuildLibrary, "bdist_wheel": PlatformWheel},
)
