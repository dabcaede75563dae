"""TFDS builder `touche23_value_eval`: downloads and verifies the published files, or reads a local folder of them.

    builder = Builder()                        # Zenodo, every file checked against checksums.tsv
    builder = Builder(source_dir="my/folder")  # the published files in a folder, for example with test-nyt
    builder.download_and_prepare()
    rows = builder.as_data_source(split="training[:10%]")

The records are array_record files, which need no TensorFlow.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError
from tensorflow_datasets.core.download.util import DownloadError

from jaxvalues.data.arguments import Split
from jaxvalues.data.folder import read_split, read_split_files, split_files, splits_in
from jaxvalues.data.taxonomy import CATEGORIES, GROUPS, VALUES, category_index
from jaxvalues.data.touche23_value_eval.release import RECORD, release_files
from jaxvalues.errors import UserError

DOWNLOADED = ("training", "validation", "test", "validation-zhihu", "test-nahjalbalagha")
FOLDER_HINT = f"save the files of {RECORD} in a folder and give data.dir"


@dataclass
class ValueEvalConfig(tfds.core.BuilderConfig):
    """The source of the files: the folder `source_dir`, or Zenodo when it is None."""

    source_dir: str | None = None


class Builder(tfds.core.GeneratorBasedBuilder):
    """Touché23-ValueEval. Each example is one argument, in the order of the files.

    `labels` [20], `level1` [54] and `groups` [4] are 0/1 int8. `has_labels` and `has_level1` are False where the labels
    are unknown; the arrays are then 0.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Zenodo record 10564870, version of 2024-01-24."}  # noqa: RUF012
    BUILDER_CONFIGS = [ValueEvalConfig(name="zenodo", description="Downloaded and verified.")]  # noqa: RUF012

    def __init__(self, *, source_dir: str | Path | None = None, **kwargs: Any):
        """`source_dir` is a folder of the published files. The config's name contains a hash of their content, so
        changed files are prepared again."""
        if source_dir is not None:
            kwargs["config"] = ValueEvalConfig(
                name=f"local-{_digest(Path(source_dir))}",
                description="Read from a local folder.",
                source_dir=str(source_dir),
            )
        super().__init__(file_format="array_record", **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        text = tfds.features.Text

        def row(columns: int) -> tfds.features.Tensor:
            return tfds.features.Tensor(shape=(columns,), dtype=np.int8)

        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "id": text(),
                    "conclusion": text(),
                    "stance": text(),
                    "premise": text(),
                    "source": text(),
                    "labels": row(len(CATEGORIES)),
                    "level1": row(len(VALUES)),
                    "groups": row(len(GROUPS)),
                    "has_labels": np.bool_,
                    "has_level1": np.bool_,
                }
            ),
            homepage=RECORD,
            license="CC BY-SA 4.0",
            disable_shuffling=True,  # predictions and the batches of a seed depend on the order of the files
            metadata=tfds.core.MetadataDict(categories=list(CATEGORIES), values=list(VALUES), groups=list(GROUPS)),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        folder = self.builder_config.source_dir
        if folder is not None:
            splits = [read_split(folder, name) for name in splits_in(folder)]
        else:
            paths = _download(dl_manager)
            splits = [read_split_files(name, *map(paths.get, split_files(name))) for name in DOWNLOADED]
        return {split.name: self._generate_examples(split) for split in splits}

    def _generate_examples(self, split: Split) -> Iterator[tuple[int, dict[str, Any]]]:
        unknown = np.zeros((len(split), len(VALUES)), np.int8)
        labels = unknown[:, : len(CATEGORIES)] if split.labels is None else split.labels
        level1 = unknown if split.level1 is None else split.level1
        members = [[category_index(name) for name in group] for group in GROUPS.values()]
        groups = np.stack([labels[:, columns].max(axis=1) for columns in members], axis=1)
        for i, argument in enumerate(split.arguments):
            yield (
                i,
                {
                    "id": argument.id,
                    "conclusion": argument.conclusion,
                    "stance": argument.stance,
                    "premise": argument.premise,
                    "source": argument.source,
                    "labels": labels[i],
                    "level1": level1[i],
                    "groups": groups[i],
                    "has_labels": split.labels is not None,
                    "has_level1": split.level1 is not None,
                },
            )


def _download(dl_manager: tfds.download.DownloadManager) -> dict[str, Path]:
    """{file name: path of the verified download}"""
    urls = {file.name: file.url for file in release_files().values()}
    try:
        _probe(next(iter(urls.values())))
        return dl_manager.download(urls)
    except NonMatchingChecksumError as error:
        reason = str(error).splitlines()[0].rstrip(":")
        raise UserError(
            f"a downloaded file is not the published file ({reason}): try again, or {FOLDER_HINT}"
        ) from error
    except (OSError, DownloadError) as error:  # every network failure is an OSError
        reason = " ".join(str(error).split())
        raise UserError(f"the data could not be downloaded ({reason}): {FOLDER_HINT}") from error


def _probe(url: str) -> None:
    """Raises OSError at once without a network. TFDS would retry for minutes."""
    with suppress(HTTPError):  # an error status also proves that there is a network
        urlopen(Request(url, method="HEAD"), timeout=20).close()


def _digest(folder: Path) -> str:
    """A hash of the content of a folder's data files: 12 hexadecimal digits."""
    if not (names := splits_in(folder)):
        raise UserError(f"{folder}: contains no split, expected files such as {split_files('training')[0]}")
    digest = hashlib.sha256()
    for name in names:
        for path in (folder / file for file in split_files(name)):
            content = path.read_bytes() if path.is_file() else b""
            digest.update(f"{path.name} {path.is_file()} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:12]
