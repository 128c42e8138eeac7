"""Answers DMARC questions with checkdmarc (RFC 9989: which record, which tags) and authheaders (RFC 7489: verdicts)."""
import functools

import authheaders
import authheaders.dmarc_lookup
import checkdmarc.dmarc
import dns.exception
import dns.resolver
from authres import DKIMAuthenticationResult, SPFAuthenticationResult

import seam


def texts(name, kind):
    """The records, or the exception that dnspython raises."""
    how, records = seam.lookup(name, kind)
    if how == "error":
        raise dns.resolver.LifetimeTimeout(timeout=1, errors=[])
    if how == "noname":
        raise dns.resolver.NXDOMAIN()
    if how == "nodata":
        raise dns.resolver.NoAnswer(response=type("Response", (), {"question": [name]})())
    return records


def query_dns(domain, record_type, **_):
    return texts(domain, record_type)


def resolve(name, kind):
    """As dnspython shows them: in quotes."""
    return ['"%s"' % text for text in texts(name, kind.upper())]


checkdmarc.dmarc.query_dns = query_dns
# Whether report mailboxes could be reached is not the question here, and must not leave this machine.
checkdmarc.dmarc.get_mx_records = lambda *_, **__: [{"hostname": "mx.example.com", "preference": 1}]
checkdmarc.dmarc.verify_dmarc_report_destination = lambda *_, **__: None
authheaders.dmarc_lookup.resolve = resolve
# It reads the whole public suffix list for every question.
remembered = functools.lru_cache(authheaders.get_org_domain)
authheaders.get_org_domain = authheaders.dmarc_lookup.get_org_domain = remembered


def ask_checkdmarc(author):
    try:
        found = checkdmarc.dmarc.query_dmarc_record(author, ignore_unrelated_records=True)
        tags = checkdmarc.dmarc.parse_dmarc_record(found["record"], found["location"])["tags"]
    except Exception as error:
        return {"error": type(error).__name__, "why": str(error)}
    values = {name: tag["value"] for name, tag in tags.items() if isinstance(tag["value"], str)}
    return {"location": found["location"], "tags": values}


def ask_authheaders(author, spf, dkim):
    spf = spf and SPFAuthenticationResult(result="pass", smtp_mailfrom="x@" + spf)
    dkim = dkim and DKIMAuthenticationResult(result="pass", header_d=dkim)
    try:
        result, _, _, policy = authheaders.dmarc_per_from(author, spf or None, dkim or None)
    except Exception as error:
        return {"error": type(error).__name__, "why": str(error)}
    return {"result": result, "policy": policy}


def work(job):
    party, question = job
    return ask_checkdmarc(question[0]) if party == "checkdmarc" else ask_authheaders(*question)


seam.serve(work)
