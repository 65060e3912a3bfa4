"""The one compiled part; where there is no C compiler, NumPy does its work."""

from pathlib import Path

from setuptools import Extension, setup

# Sums of floats may be reordered and fused; nothing else of -ffast-math, which would change the
# floating-point mode of the whole process when the library is loaded.
FLAGS = [
    "-O3",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fassociative-math",
    "-fno-signed-zeros",
    "-Wno-psabi",
]

setup(
    ext_modules=[
        Extension(
            "index._kernels",
            sorted(map(str, Path("index/loops").glob("*.c"))),
            depends=sorted(map(str, Path("index/loops").glob("*.[ch]"))),
            extra_compile_args=FLAGS,
            optional=True,
        )
    ]
)
