package main

import (
	"net"
	"strings"

	"github.com/spf13/pflag"

	"crdt-genome/httpapi"
	"crdt-genome/httpapi/membership"
)

// joinOptions are the flags for finding the other members by gossip.
type joinOptions struct {
	seeds     []string
	listen    string
	advertise string
	keyFile   string
}

// memberPort is where members listen for each other if nothing else is said.
const memberPort = "7946"

func (o *joinOptions) addFlags(f *pflag.FlagSet) {
	f.StringSliceVar(&o.seeds, "join", nil, "HOST:PORT of members that know the others; those known last are tried too")
	f.StringVar(&o.listen, "member-listen", "", "HOST:PORT for finding members, TCP and UDP (default: host of --listen, port "+memberPort+")")
	f.StringVar(&o.advertise, "member-advertise", "", "HOST:PORT that other members reach --member-listen at")
	f.StringVar(&o.keyFile, "member-key-file", "", "file with the key that all members share, 16, 24 or 32 bytes in base64; required off loopback")
}

// wanted reports whether members are to be found by gossip.
func (o *joinOptions) wanted() bool { return len(o.seeds) > 0 || o.listen != "" }

// config returns what the flags ask for; addr is where the actor listens.
func (o *joinOptions) config(addr string) (*httpapi.JoinConfig, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	j := &httpapi.JoinConfig{Listen: o.listen, Advertise: o.advertise}
	if j.Listen == "" {
		j.Listen = net.JoinHostPort(host, memberPort)
	}
	for _, seed := range o.seeds {
		if _, _, err := net.SplitHostPort(seed); err != nil {
			seed = net.JoinHostPort(strings.Trim(seed, "[]"), memberPort)
		}
		j.Seeds = append(j.Seeds, seed)
	}
	if o.keyFile != "" {
		if j.Key, err = membership.ReadKey(o.keyFile); err != nil {
			return nil, usageError(keyHint, "--member-key-file: %v", err)
		}
	}
	return j, nil
}

const keyHint = "make one for all members: head -c 32 /dev/urandom | base64 > member.key"
