package main

import (
	"strconv"

	"github.com/spf13/pflag"

	"crdt-genome/httpapi"
	"crdt-genome/httpapi/bus"
)

// busOptions are the flags for sending ops over NATS instead of by POST.
type busOptions struct {
	url, creds string
	replicas   int
}

func (o *busOptions) addFlags(f *pflag.FlagSet) {
	f.StringVar(&o.url, "bus", "", "nats://HOST:4222, several with commas: send ops over JetStream instead of by POST (one with a password: in "+envName("bus")+")")
	f.StringVar(&o.creds, "bus-creds", "", "file with NATS credentials")
	f.IntVar(&o.replicas, "bus-replicas", 1, "servers that keep each message, if the stream is not there yet")
}

// args returns the flags again, for a child, but for the URL.
func (o *busOptions) args() []string {
	if o.url == "" {
		return nil
	}
	args := []string{"--bus-replicas", strconv.Itoa(o.replicas)}
	if o.creds != "" {
		args = append(args, "--bus-creds", o.creds)
	}
	return args
}

// env returns the URL for a child: it may hold a password, and whoever is on the
// machine sees the arguments of all processes.
func (o *busOptions) env() []string {
	if o.url == "" {
		return nil
	}
	return []string{envName("bus") + "=" + o.url}
}

// connect sets cfg.Bus if there is to be one.
func (o *busOptions) connect(cfg *httpapi.Config, cluster string) (closeBus func(), err error) {
	if o.url == "" {
		return func() {}, nil
	}
	b, err := bus.Connect(bus.Config{URL: o.url, Cluster: cluster, Replicas: o.replicas, Creds: o.creds, Trust: cfg.Trust, Log: cfg.Log})
	if err != nil {
		return nil, usageError("", "--bus: %v", err)
	}
	cfg.Bus = b
	return b.Close, nil
}
