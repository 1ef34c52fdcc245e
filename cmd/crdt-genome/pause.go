package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"crdt-genome/httpapi"
)

// resumeWithin bounds how long the actors are asked to go on.
const resumeWithin = 5 * time.Second

// pauseMutation stops the mutations of every server among sources, and returns
// a function that lets those go on that were going on before.
func pauseMutation(ctx context.Context, sources []source) (resume func() error) {
	var mu sync.Mutex
	var paused []*httpapi.Client
	var wg sync.WaitGroup
	for _, s := range sources {
		server, ok := s.(*serverSource)
		if !ok {
			continue
		}
		wg.Go(func() {
			v, err := server.client.Version(ctx)
			if err != nil || v.Paused || server.client.Mutator(ctx, true) != nil {
				return // it cannot be paused, need not be, or does not answer, which the comparison shows
			}
			mu.Lock()
			defer mu.Unlock()
			paused = append(paused, server.client)
		})
	}
	wg.Wait()
	return func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), resumeWithin)
		defer cancel()
		errs := make([]error, len(paused))
		for i, c := range paused {
			wg.Go(func() {
				if err := c.Mutator(ctx, false); err != nil {
					errs[i] = fmt.Errorf("%s still mutates nothing: %w", c.URL(), err)
				}
			})
		}
		wg.Wait()
		return errors.Join(errs...)
	}
}
