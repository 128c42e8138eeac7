"""Answers SPF questions with pyspf."""
import spf

import seam


def lookup(name, qtype, strict=True, timeout=20):
    how, records = seam.lookup(name, qtype)
    if how == "error":
        raise spf.TempError(records[0])
    answers = []
    for value in records:
        if qtype == "TXT":
            value = (value.encode("latin-1"),)
        elif qtype == "MX":
            value = (value[0], value[1])
        answers.append(((name, qtype), value))
    return answers


def work(queries):
    out = []
    for ip, helo, sender in queries:
        try:
            query = spf.query(i=ip, s=sender, h=helo, strict=True, timeout=20, querytime=0)
            result, _, why = query.check()
            out.append([result, str(why)])
        except Exception as error:  # a peer that breaks is reported, not hidden
            out.append(["crash", repr(error)])
    return out


spf.DNSLookup = lookup
seam.serve(work)
