"""The peers' way to DNS: every look-up is a line of JSON to the test that started us, which holds the zone."""
import json
import sys


def lookup(name, kind):
    """(how, records) with how in records, nodata, noname, error."""
    print(json.dumps({"lookup": [name.rstrip(".").lower(), kind]}), flush=True)
    how, records = json.loads(sys.stdin.readline())
    return how, records


def serve(work):
    """Answers jobs, one a line, until the input ends."""
    while True:
        line = sys.stdin.readline()
        if not line:
            return
        print(json.dumps({"answer": work(json.loads(line))}), flush=True)
