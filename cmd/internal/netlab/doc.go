// Package netlab makes networks that can be broken: a switch and any number of
// hosts, each in a Linux network namespace of its own, so that real processes
// meet real partitions, losses and slow links, and no address outside of these
// namespaces exists.
//
//	namespace of the switch
//	+-----------------------------------------+
//	|   bridge br0                            |
//	|     p0         p1         p2     ...    |
//	+-----+----------+----------+-------------+
//	      | veth     | veth     | veth
//	+-----+----+ +---+------+ +-+--------+
//	| eth0     | | eth0     | | eth0     |
//	| 10.77.0.1| | 10.77.0.2| | 10.77.0.3|     one namespace for each host
//	+----------+ +----------+ +----------+
//
// Packets are dropped where they arrive (nftables), so the sender learns
// nothing. A link is taken down at the switch, as if its cable was pulled; what
// a host sends is slowed by a token bucket (tc tbf). Linux has netem for more,
// but not every kernel.
//
// A program reaches a host from within, by [World.Dial]: that never crosses
// the network, so a host can be watched and told what to do however broken its
// network is.
//
// It takes root, and the commands ip, tc and nft.
//
// # Invariants
//
//	N1. Nothing is made in the namespace of the caller: no interface, address,
//	    route or rule.
//	N2. What a caller that was killed has left is removed by the next one: the
//	    names have its process id in them, and only those of the dead go.
package netlab
