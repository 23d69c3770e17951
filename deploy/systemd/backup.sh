#!/bin/sh
# Back up the kept jobs of the unit once a day, as /etc/cron.daily/vibevoice-asr (docs/start/team-server.md);
# backups of more than two weeks are deleted. Without kept jobs there is nothing to do.
folder=/var/lib/vibevoice-asr
[ -e "$folder/jobs/jobs.db" ] || exit 0
mkdir -p -m 700 "$folder/backups" && chown vibevoice-asr "$folder/backups"
file="$folder/backups/jobs-$(date +%F).tar"
[ -e "$file" ] || runuser -u vibevoice-asr -- env HOME="$folder" VIBEVOICE_DATA_DIR="$folder" \
    /opt/vibevoice-asr/bin/vibevoice-asr jobs backup "$file" || exit 1
find "$folder/backups" -name 'jobs-*.tar' -mtime +14 -delete
