"""Answers SPF questions with pyspf over zones that come as JSON lines, one zone a line."""
import ipaddress
import json
import sys

import spf

ZONE = {}


def lookup(name, qtype, strict=True, timeout=20):
    entry = ZONE.get(name.lower())
    if entry is None:
        return []
    if "TIMEOUT" in entry:
        raise spf.TempError("timeout")
    kind = qtype if qtype in entry else "CNAME"
    answers = []
    for value in entry.get(kind, []):
        if kind == "TXT":
            value = (value.encode("latin-1"),)
        elif kind == "AAAA":
            value = ipaddress.IPv6Address(value).packed if spf.DNSLookup_pydns is spf.DNSLookup else value
        elif kind == "MX":
            value = (value[0], value[1])
        answers.append(((name, kind), value))
    return answers


spf.DNSLookup = lookup
for line in sys.stdin:
    job = json.loads(line)
    ZONE = job["zone"]
    out = []
    for ip, helo, sender in job["queries"]:
        try:
            q = spf.query(i=ip, s=sender, h=helo, strict=True, timeout=20, querytime=0)
            result, _, why = q.check()
            out.append([result, str(why)])
        except Exception as error:  # a peer that breaks is reported, not hidden
            out.append(["crash", repr(error)])
    print(json.dumps(out), flush=True)
