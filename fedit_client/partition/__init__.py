"""One data set → many clients' rows, by an explicit seed: lists, meters, a manifest. numpy only, and no torch."""

from fedit_client.partition.corpus import Corpus, Labels, corpus_of, read_corpus
from fedit_client.partition.dealing import make_partition
from fedit_client.partition.forms import Form, form_lines, parse_form
from fedit_client.partition.held_out import hold_out_more, split_off_local_test
from fedit_client.partition.manifest import load_partition, manifest_of
from fedit_client.partition.meters import Meters, client_table, coverage, measured_labels, meters, random_coverage
from fedit_client.partition.result import ClientRows, Partition
from fedit_client.partition.writing import write_partition

__all__ = [
    "ClientRows",
    "Corpus",
    "Form",
    "Labels",
    "Meters",
    "Partition",
    "client_table",
    "corpus_of",
    "coverage",
    "form_lines",
    "hold_out_more",
    "load_partition",
    "make_partition",
    "manifest_of",
    "measured_labels",
    "meters",
    "parse_form",
    "random_coverage",
    "read_corpus",
    "split_off_local_test",
    "write_partition",
]
