"""Where remuda's answers differ from the stock controller's on purpose: a pattern on `step: path: stock -> ours`, and why.

Patterns are tried in order; a difference belongs to the first that matches it.
"""

EXPECTED = [
    (r"\btraceback\[\d+\]: ", "the lines of Python code where the stock controller failed are not ours to show"),
    (
        r"^queue_status_of_nonsense: .*(ename|evalue): ",
        "stock takes the keys of a map for engine ids; that it is no list is the better answer",
    ),
    (
        r"^follow_where_it_is_not_allowed: ",
        "stock never answers a task whose `follow` is on an engine that its targets leave out; here it is impossible at once",
    ),
    (
        r"^(history_after_the_purge|queue_status_without_engines): .*(history|outcome|unassigned)",
        "the task of `follow_where_it_is_not_allowed`, which stock still keeps",
    ),
    (
        r"^history: .*history\[\d+\]: .* -> '<request \d of (\w*broadcast\w*>_<engine \d>|result_status_of_what_runs>)'$",
        "broadcasts are on record too, a record for each engine; what comes after them moves down",
    ),
    (
        r"^db_query_by_date: ",
        "stock cannot compare with null, which is in the record of the task that it never answers; null matches nothing here",
    ),
    (r"^load: ", "stock's keys are the text of a bytes object, cut off by an accident; here they are engine ids"),
    (
        r"^result_of_what_was_resubmitted: .*\.(metadata|result_metadata|result_header)\b",
        "stock forgets a task's metadata on resubmission, its targets too, so that it may run on any engine; here it is kept",
    ),
    (
        r"^queue_status_without_engines: .*content\.[012]\.(queue|completed|tasks): .* -> \(absent\)",
        "stock keeps dead engines in its list for ever",
    ),
]
