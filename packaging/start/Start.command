#!/bin/sh
# Opens the page in the browser. The service runs as long as this window is open.
exec "$(dirname "$0")/vibevoice-asr" open
