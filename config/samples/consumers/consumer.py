#!/usr/bin/env python3
"""Asks every minute which business unit the token of a mounted Secret acts in. Needs nothing but the standard library.

SFMC_DIR  where the Secret is mounted (/sfmc)
EVERY     seconds between calls (60)
"""

import json
import os
import pathlib
import sys
import time
import urllib.error
import urllib.request

DIR = pathlib.Path(os.environ.get("SFMC_DIR", "/sfmc"))


def key(name):
    """Returns a key of the Secret. It is read for each call: the files are replaced a few times an hour."""
    try:
        return (DIR / name).read_text()
    except FileNotFoundError:
        sys.exit(f"no {name} in {DIR}: is the Secret mounted there, and is the SFMCToken Ready?")


def get(path):
    """Calls the REST API."""
    request = urllib.request.Request(
        key("rest_instance_url") + path, headers={"Authorization": "Bearer " + key("access_token")}
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        sys.exit(f"the call failed: {error}: {error.read().decode(errors='replace')}")
    except urllib.error.URLError as error:
        sys.exit(f"the call failed: {error.reason}")


while True:
    context = get("platform/v1/tokenContext")
    print("the token acts in business unit", context["organization"]["id"], flush=True)
    time.sleep(float(os.environ.get("EVERY", "60")))
