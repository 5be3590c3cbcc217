"""Help pages about experiments: dealt data sets, fleets, evaluations. `help_pages` shows them with its own."""

from typing import Final

CODES: Final[dict[str, str]] = {
    "C041": "The method turns the adapter's factors, so each layer needs at least as many inputs as the adapter has "
    "rank. Lower adapter.rank in the task, or leave out the layer that the message names.",
    "D040": "There is no such way to deal rows, or a part of it is missing or wrong; the fix is the nearest one that "
    "works. All of them: fedit-client help partition",
    "D041": "So many clients, rows and categories do not fit each other: a client would have no row, a category no "
    "client, or no row would be left beside the test rows. The message says what is too few.",
    "D042": "The rows lack a column that the wish names, some of them lack it, or it holds words where numbers are "
    "needed. Give every row a value, or deal by another column, or at random: --by iid",
    "D043": "Not every client can have as many rows as min= asks for, at least not in 1,000 draws. Ask for fewer, or "
    "for fewer clients, or for a larger number behind dirichlet: it makes clients more alike.",
    "D044": "A partition is written to a new or empty folder; nothing is overwritten. Name another, or empty it.",
    "D045": "The file of --like is no manifest of fedit-client partition and no split file, or its lists do not fit "
    'these rows. A split file is JSON: {"split": {"client_0": [0, 5, …], "client_1": […], "global_test": […]}}, row '
    "numbers counted from 0; no row may stand twice.",
    "D046": "A manifest names its rows by their digest, and these are others: another release, another order, or rows "
    "left out. Give the very same rows.",
    "D047": "Files with different sets of columns cannot become the rows of one client. Convert them to messages "
    "first, each with: fedit-client data convert FILE --out NEW_FILE",
    "F020": "A folder of a simulation holds one task's state, so that a run that was stopped goes on; this one has "
    "another task's. Name another folder, or delete it.",
    "F029": "The masked rounds in memory know no public state, domains or compression. A simulation by the ring has "
    "the same sums for such a task.",
}


def partition_lines() -> list[str]:
    """Return the page about ways to deal a data set."""
    from fedit_client.partition import form_lines

    head = (
        "fedit-client partition DATA --clients 10 --by FORM --seed 7 --out FOLDER deals one data set to many clients. "
        "The same seed and data give the same lists on every machine. FORM is one of"
    )
    least = (
        "FIELD is category where nothing is said. dirichlet, length, quality and users take min=N for the least rows "
        "of a client, as in dirichlet:0.5:min=10; else it is 40, or an eighth of the mean, or what can be."
    )
    tests = (
        "Test rows are held out before: 10 of each category, by the seed alone, so that different forms are tested on "
        "the same rows. --together id holds translations of one question out together."
    )
    paper = "The paper: shards:2 and dirichlet:0.5, with 10 clients. --like FILE deals as a published split file says."
    return [head, "", *form_lines(), "", least, tests, paper]
