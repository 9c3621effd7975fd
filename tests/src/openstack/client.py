"""A filter of HTTP requests: JSON lines on standard input, answers on standard output."""
import json
import ssl
import sys
import time
import urllib.error
import urllib.request

trust = urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=sys.argv[1]))
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), trust)


def send(request):
    """The answer, whatever it says; a service that is being started is waited for."""
    end = time.monotonic() + 60
    while True:
        try:
            return opener.open(request, timeout=60)
        except urllib.error.HTTPError as error:
            return error
        except urllib.error.URLError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


for line in sys.stdin:
    asked = json.loads(line)
    body = asked["body"]
    request = urllib.request.Request(
        asked["url"],
        method=asked["method"],
        headers={"Content-Type": "application/json", **asked["headers"]},
        data=None if body is None else json.dumps(body).encode(),
    )
    answer = send(request)
    text = answer.read().decode()
    said = {
        "status": answer.status,
        "token": answer.headers.get("X-Subject-Token"),
        "body": json.loads(text) if text.startswith("{") else text,
    }
    print(json.dumps(said), flush=True)
