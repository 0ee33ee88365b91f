"""BM25 over many short texts by Tantivy, a Rust library of Lucene's design: built once and kept on
disk, memory-mapped, or in memory.

    python -m envs.searchqa --index 1000000      # time and memory on so many generated passages

    build(texts, path)
    index = open_index(path)
    search(index, "a query", 3) -> [(number of the text, the text, score)]
    index = in_memory(texts)    # the same; it keeps no texts: None in their place

Words are runs of letters and digits in lower case and without accents, English stop words left out,
the rest stemmed. Scripts that are written without spaces are searched by characters too, and a
query of nothing but stop words by these: for both there is a second field, of what the first one
has not. k1 = 1.2 and b = 0.75 are Tantivy's own and Lucene's; like Lucene it keeps the length of a
text in one byte. A query is made of terms, never parsed: no text of a model is taken for a query
language. Why not bm25s, the other well-kept library: its scores are a matrix that is made in
memory, and a query looks at every text.
"""
import contextlib
import functools
import hashlib
import json
import os
import re
import string
import sys
import tempfile
import time
from collections import namedtuple

from envs.lib.text import clean

Index = namedtuple("Index", "searcher schema path", defaults=["the index in memory"])
# Bytes of postings that are gathered before they are written. So much holds a million passages in
# one piece.
MEMORY = 1_000_000_000
# Characters of a query that are read, and different words that are looked up.
MAX_QUERY, MAX_TERMS = 1000, 64
STOP_WORDS = (  # Lucene's list
    "a an and are as at be but by for if in into is it no not of on or such that the their then "
    "there these they this to was will with").split()
PUNCTUATION = str.maketrans(dict.fromkeys(string.punctuation, " "))
# Thai and Lao, Burmese, Khmer, kana and Chinese characters; and Korean, where endings join a name.
UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3041-\u30ff\u3400-\u9fff"
    "\uac00-\ud7a3\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff]")
INSTALL = "Tantivy is not installed: pip install 'tantivy>=0.27'"

CHECKSUMS = "checksums.json"  # in the folder of an index


def library():
    """The package, with which everything here begins. ValueError when it is missing."""
    try:
        import tantivy
        return tantivy
    except ImportError:
        raise ValueError(INSTALL) from None


@functools.cache
def analyzer():
    """What makes terms of a text and of a query alike."""
    t = library()
    chain = t.TextAnalyzerBuilder(t.Tokenizer.simple())
    for step in (t.Filter.remove_long(40), t.Filter.lowercase(), t.Filter.ascii_fold(),
                 t.Filter.custom_stopword(STOP_WORDS), t.Filter.stemmer("english")):
        chain = chain.filter(step)
    return chain.build()


def terms(text):
    """["Who was the fastest runner?"] -> ["fastest", "runner"], stemmed"""
    return analyzer().analyze(clean(text))


def stopped(text):
    """The stop words in it, each once."""
    words = set(text.lower().translate(PUNCTUATION).split())
    return [word for word in STOP_WORDS if word in words]


def characters(text):
    """Each character of a script without spaces."""
    return [] if text.isascii() else UNSPACED.findall(text)


def schema(stored):
    fields = library().SchemaBuilder().add_text_field(
        "text", stored=stored, tokenizer_name="words", index_option="freq")
    fields = fields.add_text_field("rest", tokenizer_name="whitespace", index_option="freq")
    return fields.add_unsigned_field("number", stored=True).build()


def write(index, texts):
    """One thread writes, so that the same texts make the same index; however it ends, it ends
    before a folder goes."""
    t = library()
    index.register_tokenizer("words", analyzer())
    with index.writer(heap_size=MEMORY, num_threads=1) as writer:
        for number, text in enumerate(map(clean, texts)):
            rest = " ".join(stopped(text) + characters(text))
            writer.add_document(t.Document(text=text, rest=rest, number=number))


def in_memory(texts):
    index = library().Index(schema(stored=False))
    write(index, texts)
    index.reload()
    return Index(index.searcher(), index.schema)


def build(texts, path):
    """An index of texts (any iterable of str, read once) in a folder `path`, which must not exist.
    It is made in a folder beside it and moved when it is whole; where another process was faster,
    its is kept."""
    t, folder = library(), os.path.dirname(os.path.abspath(path))
    os.makedirs(folder, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix="making-") as parent:
        fresh = os.path.join(parent, "index")
        os.mkdir(fresh)
        write(t.Index(schema(stored=True), path=fresh), texts)
        with open(os.path.join(fresh, CHECKSUMS), "w", encoding="utf-8") as file:
            json.dump(checksums(fresh), file)
        with contextlib.suppress(OSError):
            os.rename(fresh, path)
    if not os.path.isdir(path):
        raise OSError(f"cannot write {path}")


def checksums(path):
    """{file: hash} of an index."""
    found = {}
    for name in sorted(os.listdir(path)):
        if name != CHECKSUMS and not name.endswith(".lock"):
            with open(os.path.join(path, name), "rb") as file:
                found[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


@contextlib.contextmanager
def damage(path):
    """What is wrong with an index is a ValueError. Rust panics at some of it, and a panic is a
    BaseException."""
    try:
        yield
    except BaseException as error:
        panic = type(error).__name__ == "PanicException"
        if not (panic or isinstance(error, (ValueError, OSError))):
            raise
        why = " ".join(str(error).split())[:200] or "no index"
        raise ValueError(f"{path}: {why}; delete it, and it is made again") from None


def open_index(path):
    """The files stay on disk; the pages that queries touch come into memory. ValueError when it
    holds no index, or one whose bytes changed: the library maps the files into memory and trusts
    them, so that a wrong length in one can end the process."""
    with damage(path):
        with open(os.path.join(path, CHECKSUMS), encoding="utf-8") as file:
            if json.load(file) != checksums(path):
                raise ValueError("its bytes changed since it was made")
        index = library().Index.open(path)
        # Nobody writes to it, so no thread has to watch for changes.
        index.config_reader("manual")
        return Index(index.searcher(), index.schema, path)


def cached(key, texts, folder):
    """The index of texts() in `folder`, by a hash of `key` (anything json holds that tells texts
    apart): built unless it was before."""
    from importlib.metadata import version
    library()
    name = hashlib.sha256(json.dumps([key, version("tantivy"), 3]).encode()).hexdigest()[:16]
    path = os.path.join(folder, name)
    if not os.path.isdir(path):
        try:
            build(texts(), path)
        except OSError as error:
            why = error.strerror or error
            raise ValueError(f"no index can be made in {folder} ({why})") from None
    return open_index(path)


def search(index, query, k):
    """The k best of the texts that share a word with the query, or a character of a script without
    spaces: [(number, text, score)], best first; of equals the earlier text. Never raises on any
    query; ValueError when the index is damaged."""
    t, query = library(), clean(query[:MAX_QUERY])
    words = [("text", word) for word in terms(query)]
    words += [("rest", character) for character in characters(query)]
    words = words or [("rest", word) for word in stopped(query)]
    words = list(dict.fromkeys(words))[:MAX_TERMS]
    if not words:
        return []
    terms_wanted = [t.Query.term_query(index.schema, *word, "freq") for word in words]
    wanted = t.Query.boolean_query([(t.Occur.Should, term) for term in terms_wanted])
    with damage(index.path):
        # Counting would look at every match.
        hits = index.searcher.search(wanted, k, count=False).hits
        found = [(index.searcher.doc(address), score) for score, address in hits]
    found = [(doc.get_first("number"), doc.get_first("text"), score) for doc, score in found]
    return sorted(found, key=lambda hit: (-hit[2], hit[0]))


# ---- how fast, on generated text ----

def generated(n, seed=0, vocabulary=200_000):
    """n texts of 60 to 100 words from a vocabulary in which the r-th word is drawn in proportion to
    1/r (Zipf), the first of them as in English."""
    import numpy
    rng = numpy.random.default_rng(seed)
    share = numpy.cumsum(1 / numpy.arange(1, vocabulary + 1))
    # These are stop words, which are not indexed.
    words = "the of and in to a is was for as on with by".split()
    words += [f"q{numpy.base_repr(i, 36).lower()}" for i in range(len(words), vocabulary)]
    for _ in range(n):
        drawn = numpy.searchsorted(share, rng.random(rng.integers(60, 101)) * share[-1])
        yield " ".join(words[i] for i in drawn)


def measure(n, queries=300):
    """Build and query an index of n generated passages; a query is the first twelve words of
    another passage. Prints a line of json."""
    import resource
    began = time.perf_counter()
    for _ in generated(n):
        pass
    making = time.perf_counter() - began  # the texts themselves
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "index")
        began, used = time.perf_counter(), time.process_time()
        build(generated(n), path)
        wall, cpu = time.perf_counter() - began, time.process_time() - used
        size = sum(os.path.getsize(os.path.join(path, name)) for name in os.listdir(path))
        index, spent = open_index(path), []
        for text in generated(queries, seed=1):
            began = time.perf_counter()
            search(index, " ".join(text.split()[:12]), 3)
            spent.append(1000 * (time.perf_counter() - began))
        pieces = index.searcher.num_segments
    spent.sort()
    unit = 1 if sys.platform == "darwin" else 1024
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    times = {"mean": sum(spent) / queries, "median": spent[queries // 2],
             "p95": spent[queries * 95 // 100], "max": spent[-1]}
    print(json.dumps({
        "passages": n, "index_s": round(wall, 1), "of_it_making_texts_s": round(making, 1),
        "cpu_s": round(cpu, 1), "peak_memory_gib": round(memory / 2**30, 2),
        "disk_gib": round(size / 2**30, 2), "pieces": pieces,
        "query_ms": {name: round(ms, 2) for name, ms in times.items()}}))
