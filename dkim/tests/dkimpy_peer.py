"""One process that signs and verifies with dkimpy: a JSON object a line in, one a line out."""

import base64
import json
import sys

import dkim

keys = {}


def txt(name, timeout=5):
    return keys.get(name.rstrip(b"."))


def octets(request, name):
    return base64.b64decode(request[name])


def text(request, name):
    return request[name].encode()


def sign(request):
    signer = dkim.DKIM(octets(request, "message"), signature_algorithm=text(request, "algorithm"), linesep=b"\r\n")
    header, body = request["canon"].split("/")
    return signer.sign(
        text(request, "selector"),
        text(request, "domain"),
        octets(request, "key"),
        canonicalize=(header.encode(), body.encode()),
    )


def arc_sign(request):
    lines = dkim.arc_sign(
        octets(request, "message"),
        text(request, "selector"),
        text(request, "domain"),
        octets(request, "key"),
        text(request, "authserv-id"),
        linesep=b"\r\n",
    )
    return b"".join(lines)


def answer(request):
    verb = request["verb"]
    if verb == "key":
        keys[text(request, "name")] = text(request, "record")
        return {}
    if verb == "verify":
        return {"pass": dkim.DKIM(octets(request, "message")).verify(dnsfunc=txt)}
    if verb == "arc-verify":
        cv, _, why = dkim.arc_verify(octets(request, "message"), dnsfunc=txt)
        return {"cv": cv.decode() if cv else "", "why": str(why)}
    fields = sign(request) if verb == "sign" else arc_sign(request)
    return {"fields": base64.b64encode(fields).decode()}


for line in sys.stdin:
    try:
        reply = answer(json.loads(line))
    except Exception as error:  # The peer's failure is a result.
        reply = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(reply), flush=True)
