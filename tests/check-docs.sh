#!/bin/sh
# check-docs.sh: do the documents say what the tools do, and nothing else?
#
# One line for each finding, `check-docs: FILE: what`, and exit code 1 if there is any. It needs
# mandoc, and the binaries in $DMS_BIN (default: target/debug); it builds nothing.
set -eu
export LC_ALL=C

cd "$(dirname "$0")/.."
bin=$(cd "${DMS_BIN:-${CARGO_TARGET_DIR:-target}/debug}" 2>/dev/null && pwd) || {
    echo "check-docs: ${DMS_BIN:-${CARGO_TARGET_DIR:-target}/debug}: no such directory: build first"
    exit 1
}
# The scripts call the tools by name.
PATH=$bin:$PATH

finding() {
    printf 'check-docs: %s: %s\n' "$1" "$2"
}

# Words on stdin that are not among those of the file $1.
missing_in() {
    sort -u | comm -23 - "$1"
}

# --- (a) the pages are clean mdoc

check_mdoc() {
    command -v mandoc >/dev/null || {
        finding man "unable to check: mandoc is not installed"
        return
    }
    mandoc -Tlint -W warning man/* 2>&1 | sed 's/^mandoc: /check-docs: /'
}

# --- (b) options and subcommands: --help and page agree

# The visible subcommands in the help text on stdin.
subcommands() {
    sed -n '/^Commands:/,/^$/s/^  \([a-z][a-z-]*\) .*/\1/p'
}

# Everything that the help of TOOL [SUBCOMMAND...] shows, deeper ones included: a line each,
# `option -x`, `command NAME` or `alias NAME`.
offered() {
    help=$("$@" --help </dev/null) || return 1
    printf '%s\n' "$help" | sed -n '/^Options:/,/^$/p' |
        sed -n 's/^ *\(-[A-Za-z]\), \(--[a-z-]*\).*/option \1\noption \2/p
                s/^ *\(--*[A-Za-z][a-z-]*\)\([^,a-z-].*\)\{0,1\}$/option \1/p'
    printf '%s\n' "$help" | sed -n 's/.*\[alias: \([a-z-]*\)\].*/alias \1/p'
    for name in $(printf '%s\n' "$help" | subcommands); do
        echo "command $name"
        # The help of `help` is the help.
        [ "$name" = help ] || (offered "$@" "$name") || return 1
    done
}

# What the page $1 names, in the same form: `option` anywhere, `entry` at the head of a paragraph,
# `command` at the head of a paragraph, `alias` anywhere.
documented() {
    awk 'sub(/^\. */, "") {
        for (i = 1; i < NF; i++) {
            if ($i == "Fl" && $(i + 1) ~ /^-?[A-Za-z]/) {
                print "option -" $(i + 1)
                if ($1 == "It") print "entry -" $(i + 1)
            }
        }
        if ($1 == "It" && $2 == "Ic")
            for (i = 3; i <= NF; i++) if ($i ~ /^[a-z]/) print "command " $i
        if ($1 == "Ic") for (i = 2; i <= NF; i++) if ($i ~ /^[a-z]/) print "alias " $i
    }' "$1" | sort -u
}

# check_options PROGRAM PAGE
check_options() {
    [ -e "$2" ] || {
        finding "$2" "there is no such page"
        return
    }
    offered "$1" >"$tmp/offered.raw" 2>"$tmp/errors" || {
        finding "$2" "unable to run ${1##*/} --help: $(head -n 1 "$tmp/errors")"
        return
    }
    sort -u "$tmp/offered.raw" >"$tmp/offered"
    documented "$2" >"$tmp/documented"
    # An option has a paragraph of its own.
    sed 's/^option/entry/' "$tmp/offered" | missing_in "$tmp/documented" | sed 's/^entry/option/' |
        while read -r kind name; do
            finding "$2" "lacks $kind $name, which ${1##*/} --help has"
        done
    # Refused, and said to be: it is in no help, lest anybody use it.
    grep -E '^(option|command) ' "$tmp/documented" | grep -vx 'option --token' |
        missing_in "$tmp/offered" |
        while read -r kind name; do
            finding "$2" "has $kind $name, which ${1##*/} --help lacks"
        done
}

# --- (c) environment variables: documents and sources agree

check_environment() {
    variable='DMS_[A-Z][A-Z0-9_]*[A-Z]|KEYSTONE_TOKEN'
    {
        grep -rhoE "\"($variable)\"" lib/dms-cli/src lib/dms-flock/src tools/*/src | tr -d '"'
        # Scripts read theirs as ${NAME-}.
        grep -hoE "\\$\{($variable)\b" pipelines/* | sed 's/^..//'
    } | sort -u >"$tmp/read"
    for file in man/* README.md; do
        grep -ohE "\\b($variable)\\b" "$file" | missing_in "$tmp/read" | while read -r name; do
            finding "$file" "has variable $name, which no tool reads"
        done
    done
    grep -ohE "\\b($variable)\\b" man/* | sort -u >"$tmp/pages"
    missing_in "$tmp/pages" <"$tmp/read" | while read -r name; do
        finding man "no page has variable $name, which the tools read"
    done
}

# Every setting has a paragraph in the page on settings, by the name that it has in a file.
check_settings() {
    page=man/dms.conf.5 source=lib/dms-cli/src/config/mod.rs
    sed -n '/^const VARIABLES/,/^\]/s/^ *"DMS_\([A-Z0-9_]*\)".*/\1/p' "$source" | tr '[:upper:]' '[:lower:]' |
        sort -u >"$tmp/settings"
    [ -s "$tmp/settings" ] || finding "$source" "no setting was found there"
    sed -n 's/^\.It Cm //p' "$page" | tr -s ' ,' '\n' | sort -u >"$tmp/paragraphs"
    missing_in "$tmp/paragraphs" <"$tmp/settings" | while read -r name; do
        finding "$page" "lacks setting $name, which $source has"
    done
}

# --- (d) links between files, and what the pages name

check_links() {
    for file in README.md ARCHITECTURE.md CONTRIBUTING.md; do
        [ -e "$file" ] || {
            finding "$file" "there is no such file"
            continue
        }
        grep -oE '\]\([^)]*\)' "$file" | sed 's/^](//; s/)$//; s/#.*//' |
            grep -vE '^$|^[a-z]+:' | while read -r link; do
            [ -e "$link" ] || finding "$file" "has a link to $link, which is not there"
        done
    done
    for file in man/*; do
        sed -nE 's/^\.(It )?Xr ((dms|trilio)[a-z.-]*) ([1-8]).*/man\/\2.\4/p' "$file" |
            sort -u | while read -r page; do
            [ -e "$page" ] || finding "$file" "refers to $page, which is not there"
        done
        grep -ohE '\b(packaging|examples)(/[a-z][a-z_-]*)+(\.[a-z]+)?' "$file" | sort -u |
            while read -r path; do
                [ -e "$path" ] || finding "$file" "names $path, which is not there"
            done
    done
}

# --- (e) error codes: the page and the wire agree

check_error_codes() {
    page=man/dms-request.5 source=lib/dms-wire/src/response.rs
    sed -n 's/.*ErrorCode::[A-Za-z]* => "\([a-z_]*\)".*/\1/p' "$source" | sort -u >"$tmp/codes"
    sed -n '/^\.Ss Error codes$/,/^\.S[sh] [^E]/s/^\.It Cm \([a-z_]*\)$/\1/p' "$page" |
        sort -u >"$tmp/listed"
    missing_in "$tmp/listed" <"$tmp/codes" | while read -r code; do
        finding "$page" "lacks error code $code, which $source has"
    done
    missing_in "$tmp/codes" <"$tmp/listed" | while read -r code; do
        finding "$page" "has error code $code, which $source lacks"
    done
    [ -s "$tmp/codes" ] || finding "$source" "no error code was found there"
}

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

findings=$(
    # A check that finds nothing to compare must not end the others.
    set +e
    check_mdoc
    check_options "$bin/dms-lock" man/dms-lock.1
    check_options "$bin/dms-ledger" man/dms-ledger.1
    check_options "$bin/dms-mount" man/dms-mount.8
    check_options "$bin/dms-with" man/dms-with.1
    check_options "$bin/dms-listen" man/dms-listen.8
    check_options "$bin/dms-call" man/dms-call.1
    check_options pipelines/dms-pipeline man/dms-pipeline.1
    check_options pipelines/trilio-dms-cli man/trilio-dms-cli.1
    check_environment
    check_settings
    check_links
    check_error_codes
)
[ -z "$findings" ] || {
    printf '%s\n' "$findings"
    exit 1
}
