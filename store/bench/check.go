package bench

import (
	"context"
	"errors"
	"fmt"

	"crdt-genome/store"
)

// closeChecked closes a and opens its log again: it must hold at least as many
// events as were acknowledged, and the same state as before. More than that it
// may hold only if a run was interrupted.
func closeChecked(a *store.Actor, cfg store.Config, acknowledged uint64) error {
	ctx := context.Background() // also after an interruption
	before, err := a.State(ctx)
	if err = errors.Join(err, a.Close()); err != nil {
		return err
	}
	again, err := store.Open(ctx, cfg)
	if err != nil {
		return err
	}
	after, err := again.State(ctx)
	if err == nil {
		err = compareStates(before, after, acknowledged)
	}
	return errors.Join(err, again.Close())
}

func compareStates(before, after *store.State, acknowledged uint64) error {
	switch {
	case after.Ops < acknowledged:
		return fmt.Errorf("%w: %d events were acknowledged, and the log holds %d", ErrWrong, acknowledged, after.Ops)
	case after.Ops != before.Ops || after.Digest != before.Digest:
		return fmt.Errorf("%w: %d events with digest %v before the log was closed, %d with %v after it was opened again",
			ErrWrong, before.Ops, before.Digest, after.Ops, after.Digest)
	}
	return nil
}
