#!/usr/bin/env bash
# Makes what actors on several machines know each other by, with openssl.
#
#   scripts/certs.sh DIR                    an authority: DIR/ca.pem, DIR/ca.key; and DIR/token
#   scripts/certs.sh DIR NAME HOST [HOST…]  a certificate of it for an actor or a person:
#                                           DIR/NAME.pem, DIR/NAME.key; HOST is a name or an address
#
# Keep ca.key off the machines that run actors. A certificate lasts a year, the
# authority ten. Made again, with the same NAME, it replaces the old one: copy
# it to its machine and send the actor a SIGHUP.
set -euo pipefail
umask 077

if [ $# = 0 ] || [ "$1" = -h ] || [ "$1" = --help ]; then
  sed -n '2,/^set/s/^# \{0,1\}//p' "$0" | sed '$d'
  [ $# -gt 0 ] && exit 0 || exit 64
fi
dir=$1
shift
mkdir -p "$dir"

quiet() { # openssl tells of its progress on stderr also when all is well
  local said
  said=$("$@" 2>&1) || { echo "$said" >&2; return 1; }
}

key() { quiet openssl ecparam -name prime256v1 -genkey -noout -out "$1"; }

if [ ! -e "$dir/ca.key" ]; then
  key "$dir/ca.key"
  quiet openssl req -x509 -new -key "$dir/ca.key" -sha256 -days 3650 -subj "/CN=crdt-genome authority" -out "$dir/ca.pem"
  openssl rand -hex 32 >"$dir/token"
  echo "made $dir/ca.pem, $dir/ca.key, $dir/token"
fi
[ $# -gt 0 ] || exit 0

name=$1
shift
[ $# -gt 0 ] || { echo "error: under which names or addresses is $name reached?" >&2; exit 64; }
names=
for host; do
  if [[ $host =~ ^[0-9.]+$ || $host == *:* ]]; then names+=,IP:$host; else names+=,DNS:$host; fi
done
key "$dir/$name.key"
quiet openssl req -new -key "$dir/$name.key" -subj "/CN=$name" -out "$dir/$name.csr"
printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth,clientAuth\nkeyUsage=digitalSignature\nbasicConstraints=CA:FALSE\n' "${names#,}" >"$dir/$name.ext"
quiet openssl x509 -req -in "$dir/$name.csr" -CA "$dir/ca.pem" -CAkey "$dir/ca.key" -CAcreateserial -sha256 -days 365 \
  -extfile "$dir/$name.ext" -out "$dir/$name.pem"
rm -f "$dir/$name.csr" "$dir/$name.ext"
echo "made $dir/$name.pem, $dir/$name.key for ${names#,}"
