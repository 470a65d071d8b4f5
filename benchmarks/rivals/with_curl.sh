#!/bin/sh
# All calls of a configuration file (signed_rows.py writes it), several at a time; the answers lie
# in the folder answers/.
#
#     sh with_curl.sh calls.curl 16
set -eu
mkdir -p answers
exec curl --parallel --parallel-max "$2" --silent --show-error --config "$1"
