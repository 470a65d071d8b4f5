#!/bin/sh
# A curl for each line of a table (signed_rows.py writes it), several at a time, with a log of what
# was done; the answers lie in the folder answers/.
#
#     sh with_parallel.sh rows.tsv 16 http://127.0.0.1:8765/finauth/search/group/add staff
set -eu
mkdir -p answers
exec parallel --will-cite --quote --jobs "$2" --joblog jobs.log --retries 3 --colsep '\t' \
    curl --silent --show-error --fail-with-body --max-time 60 \
    --form-string sign={5} --form-string sign_version=hmac_sha1 --form-string group_id="$4" \
    --form-string user_id={2} --form-string user_data={3} \
    --form 'file=@{4};type=image/jpeg;filename=photo.jpg' \
    --output answers/{1}.json "$3" :::: "$1"
