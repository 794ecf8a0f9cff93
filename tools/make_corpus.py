"""Makes the bundled corpus from two downloaded archives; needs no network itself.

    apt-get download sword-text-web          # Debian, version 426.0-1
    npm pack chinese-poetry@2.0.1
    python tools/make_corpus.py sword-text-web_426.0-1_all.deb chinese-poetry-2.0.1.tgz

writes glm_jax/bundled/corpus.en.xz and corpus.zh.xz. The same archives give the same text, and the
same bytes under the same version of liblzma.
"""

import argparse
import io
import json
import lzma
import re
import struct
import subprocess
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

BUNDLED = Path(__file__).resolve().parent.parent / "glm_jax" / "bundled"

# Narrative prose: the law, the history books up to the exile, the gospels, the acts.
BOOKS = [
    "Gen",
    "Exod",
    "Lev",
    "Num",
    "Deut",
    "Josh",
    "Judg",
    "Ruth",
    "1Sam",
    "2Sam",
    "1Kgs",
    "2Kgs",
    "Matt",
    "Mark",
    "Luke",
    "John",
    "Acts",
]

# Authors of the Song dynasty whose ci poems are taken, in the package's (simplified) spelling.
CI_AUTHORS = [
    "柳永",
    "欧阳修",
    "晏几道",
    "苏轼",
    "秦观",
    "周邦彦",
    "李清照",
    "陆游",
    "辛弃疾",
    "姜夔",
]

_NOTE = "\0"

# Short pieces of one author or section are joined until a document has this many characters.
MIN_DOCUMENT = 400

ASCII_TO_CHINESE = str.maketrans("?!,:;.∶．", "？！，：；。：。")
CHINESE_ALLOWED = re.compile(r"[\u4e00-\u9fff々，。、；：？！…—“”‘’「」『』《》\n]*")
ENGLISH_ALLOWED = re.compile(r"[A-Za-z0-9 \n.,;:?!()“”‘’—–-]*")


def read_bible(archive: Path) -> list[str]:
    """The chapters of `BOOKS` from the Debian package of the World English Bible."""
    listing = subprocess.run(
        ["dpkg-deb", "--fsys-tarfile", str(archive)], check=True, capture_output=True
    )
    documents: list[str] = []
    with tarfile.open(fileobj=io.BytesIO(listing.stdout)) as tar:
        files = {Path(name).name: name for name in tar.getnames()}
        for testament in ("ot", "nt"):
            index, data = (
                tar.extractfile(files[f"{testament}.{suffix}"]).read()  # type: ignore[union-attr]
                for suffix in ("bzs", "bzz")
            )
            for book in _sword_blocks(index, data):
                documents += _chapters(book)
    return documents


def _sword_blocks(index: bytes, data: bytes) -> Iterator[str]:
    """The books of a SWORD zText module: `.bzs` holds offset, size, and unpacked size of each."""
    for offset, size, _ in struct.iter_unpack("<III", index):
        if size:
            yield zlib.decompress(data[offset : offset + size]).decode("utf-8")


def _chapters(osis: str) -> Iterator[str]:
    """Plain chapters of a book in OSIS markup, if it is one of `BOOKS`.

    <chapter osisID="Gen.1" sID=.../><w ..>In</w> <w ..>the</w> beginning, God<note>..</note><w>..
    -> "In the beginning, God created ..."
    """
    osis = re.sub(r"<(note|title|speaker)\b.*?</\1>", _NOTE, osis, flags=re.S)
    osis = re.sub(r"\s+", " ", osis)
    osis = re.sub(r"<div sID[^>]*x-p\"/>|<lb type=\"x-p\"/>|<l(?:g)? [^>]*sID[^>]*/>", "\n", osis)
    parts = re.split(r'<chapter n="\d+" osisID="(\w+)\.\d+" sID="[^"]*"/>', osis)
    for book, chapter in zip(parts[1::2], parts[2::2], strict=True):
        if book in BOOKS:
            text = re.sub(r"<[^>]+>", "", chapter)
            # A note stands in the place of the blank before the next word.
            text = re.sub(rf"{_NOTE}+(?=[\w“‘(])", " ", text).replace(_NOTE, "")
            text = re.sub(r" +(?=[?!.,;: ])", "", text)
            # The archive itself lacks some blanks at the end of a speech.
            text = re.sub(r"(?<=[.,;:?!”])(?=[A-Za-z])", " ", text)
            yield "\n".join(line.strip() for line in text.split("\n") if line.strip())


def read_chinese(archive: Path) -> list[str]:
    """Prose and poems from the npm package chinese-poetry."""
    with tarfile.open(archive) as tar:

        def load(name: str) -> Any:
            return json.load(tar.extractfile(f"package/dist/{name}.json"))  # type: ignore[arg-type]

        documents: list[str] = []
        for volume in load("mengxue/guwenguanzhi")["content"]:
            for piece in volume["content"]:
                documents.append(_prose(piece["chapter"], piece["paragraphs"]))
        classics = [*load("lunyu/lunyu"), *load("sishuwujing/mengzi")]
        classics += [load("sishuwujing/daxue"), load("sishuwujing/zhongyong")]
        for book in classics:
            documents.append(_prose(book["chapter"], book["paragraphs"]))
        for volume in load("mengxue/youxueqionglin")["content"]:
            for piece in volume["content"]:
                documents.append(_prose(piece["chapter"], piece["paragraphs"]))
        documents += _poems(
            (p["section"], _poem("", p["title"], p["content"])) for p in load("shijing/shijing")
        )
        for p in load("chuci/chuci"):
            verses = p["content"]
            stanzas = ["".join(verses[i : i + 4]) for i in range(0, len(verses), 4)]
            documents.append(_poem(p["author"], p["title"], stanzas))
        documents += _poems(
            (kind["type"], _poem(p["author"], p["chapter"], ["".join(p["paragraphs"])]))
            for kind in load("mengxue/tangshisanbaishou")["content"]
            for p in kind["content"]
        )
        names = [n for n in tar.getnames() if re.search(r"songci/ci\.song\.\d+\.json$", n)]
        names.sort(key=lambda name: int(name.split(".")[-2]))
        songs = [p for n in names for p in json.load(tar.extractfile(n))]  # type: ignore[arg-type]
    for author in CI_AUTHORS:
        mine = [p for p in songs if p["author"] == author]
        documents += _poems(
            (author, _poem(author, p["rhythmic"], ["".join(p["paragraphs"])])) for p in mine
        )
    return documents


def _clean(text: str) -> str:
    """One paragraph without notes and blanks, its punctuation Chinese; "" where it is not clean.

    "不服？ 君若以力(一作：徧)" -> "不服？君若以力"; "大國之□" -> "" (a character is missing)
    """
    text = re.sub(r"[(（][^)）]*[)）]|\[通[^\]]*\]", "", text)
    text = re.sub(r"\s", "", text).translate(ASCII_TO_CHINESE)
    return text if CHINESE_ALLOWED.fullmatch(text) else ""


def _prose(title: str, paragraphs: Iterable[str]) -> str:
    """A piece as its title and its paragraphs, one a line; unclean paragraphs are left out."""
    lines = [_clean(paragraph) for paragraph in paragraphs]
    title = _clean(title)
    return "\n".join([f"《{title}》"] * bool(title) + [line for line in lines if line])


def _poem(author: str, title: str, stanzas: list[str]) -> str:
    """A poem as "author《title》" and its stanzas, one a line; "" where a part is not clean."""
    lines = [_clean(stanza) for stanza in stanzas]
    # Titles such as "离骚・其一" keep their first part.
    head = _clean(re.split(r"[·・/]", title)[0].split("《")[-1].rstrip("》"))
    if not all(lines) or not head:
        return ""
    return "\n".join([f"{_clean(author)}《{head}》", *lines])


def _poems(poems: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Joins neighbouring poems of one group to documents of at least `MIN_DOCUMENT` characters."""
    group, parts = "", []  # type: tuple[str, list[str]]
    for key, poem in poems:
        if parts and (key != group or sum(map(len, parts)) >= MIN_DOCUMENT):
            yield "\n".join(parts)
            parts = []
        group = key
        if poem:
            parts.append(poem)
    if parts:
        yield "\n".join(parts)


def write(path: Path, documents: list[str], allowed: re.Pattern[str]) -> None:
    """Checks every document and writes them with an empty line between them."""
    documents = list(dict.fromkeys(document for document in documents if document))
    for document in documents:
        end = allowed.match(document).end()  # type: ignore[union-attr]
        if end != len(document) or "\n\n" in document:
            raise ValueError(f"not clean at {document[max(0, end - 40) : end + 20]!r}")
    raw = ("\n\n".join(documents) + "\n").encode("utf-8")
    packed = lzma.compress(raw, preset=9 | lzma.PRESET_EXTREME)
    path.write_bytes(packed)
    print(f"{path.name}: {len(documents)} documents, {len(raw)} bytes, {len(packed)} packed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("bible", type=Path, help="sword-text-web_426.0-1_all.deb")
    parser.add_argument("poetry", type=Path, help="chinese-poetry-2.0.1.tgz")
    parser.add_argument("--out", type=Path, default=BUNDLED, help="default: %(default)s")
    args = parser.parse_args()
    write(args.out / "corpus.en.xz", read_bible(args.bible), ENGLISH_ALLOWED)
    write(args.out / "corpus.zh.xz", read_chinese(args.poetry), CHINESE_ALLOWED)


if __name__ == "__main__":
    main()
