package provisioner

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/ingot-metal/ingot/storage"
)

const (
	deadlineInterval = 5 * time.Second // between two looks for what has outlived its time
	powerStale       = 5 * time.Minute // a power state older than this is asked for again
	powerBatch       = 20              // machines asked a look
	recoverBatch     = 100
	silentBatch      = 500 // machines that wait for their power are among them until their deadline
)

// RunLifecycle recovers what did not end by itself until ctx ends: transitional statuses past their deadline, power orders whose
// rack was lost, and power states that nobody asked for in a while.
func (s *Service) RunLifecycle(ctx context.Context) error {
	t := time.NewTicker(deadlineInterval)
	defer t.Stop()
	for {
		if err := s.RecoverOnce(ctx); err != nil && ctx.Err() == nil {
			s.Log.Error("recover machines", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
}

// RecoverOnce is one look. Each machine is recovered in a transaction of its own, so that one that cannot be does not hold up the others.
func (s *Service) RecoverOnce(ctx context.Context) error {
	ctx = WithActor(ctx, SystemActor())
	errs := []error{s.EndLostJobs(ctx)}
	var expired, endless, stale, silent []int64
	err := s.DB.Read(ctx, func(tx *storage.Tx) (err error) {
		if expired, err = tx.ExpiredNodes(tx.Now(), recoverBatch); err != nil {
			return err
		}
		var statuses []storage.NodeStatus
		for st := range transitionals {
			statuses = append(statuses, st)
		}
		slices.Sort(statuses)
		if endless, err = tx.NodesWithoutDeadline(statuses, recoverBatch); err != nil {
			return err
		}
		timeout, err := s.nodeTimeout(tx)
		if err != nil {
			return err
		}
		if silent, err = tx.SilentNodes(watched, tx.Now().Add(-silence(timeout)), evPowerCycling.name, silentBatch); err != nil {
			return err
		}
		unqueryable := []string{"manual"}
		for name, d := range s.Power {
			if !d.Describe().Queryable && name != "manual" {
				unqueryable = append(unqueryable, name)
			}
		}
		stale, err = tx.StalePower(tx.Now().Add(-powerStale), unqueryable, powerBatch)
		return err
	})
	errs = append(errs, err)
	for _, id := range expired {
		errs = append(errs, s.DB.Write(ctx, func(tx *storage.Tx) error { return s.expire(tx, id) }))
	}
	for _, id := range silent {
		errs = append(errs, s.DB.Write(ctx, func(tx *storage.Tx) error { return s.watch(tx, id) }))
	}
	for _, id := range endless {
		errs = append(errs, s.DB.Write(ctx, func(tx *storage.Tx) error { return s.giveDeadline(tx, id) }))
	}
	if len(stale) > 0 {
		errs = append(errs, s.DB.Write(ctx, func(tx *storage.Tx) error {
			for _, id := range stale {
				n, err := tx.LockNode(id)
				if errors.Is(err, storage.ErrNotFound) {
					continue
				}
				if err != nil {
					return err
				}
				if !s.queryable(n.PowerType) {
					continue
				}
				if _, err := s.enqueuePower(tx, &n, PowerQuery, false); err != nil {
					return err
				}
			}
			return nil
		}))
	}
	return errors.Join(errs...)
}

// expire recovers a machine whose status has outlived its deadline, unless it moved on meanwhile.
func (s *Service) expire(tx *storage.Tx, id int64) error {
	n, err := tx.LockNode(id)
	if errors.Is(err, storage.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if n.StatusExpires.IsZero() || n.StatusExpires.After(tx.Now()) {
		return nil
	}
	t, ok := transitionals[n.Status]
	if !ok { // a resting status has no deadline
		n.StatusExpires = time.Time{}
		return tx.UpdateNode(&n)
	}
	timeout, err := s.nodeTimeout(tx)
	if err != nil {
		return err
	}
	minutes := int64(t.deadline(timeout).Sub(time.Time{}) / time.Minute)
	keepOn := hasFlag(&n, flagEnableSSH) && n.Status == storage.StatusCommissioning
	if err := s.fail(tx, &n, timeoutText(n.Status, minutes)); err != nil {
		return err
	}
	if !t.powerOff || keepOn {
		return nil
	}
	return s.powerDown(tx, &n)
}

// giveDeadline repairs a transitional status that has none: it cannot be written, but a database may come from elsewhere.
func (s *Service) giveDeadline(tx *storage.Tx, id int64) error {
	n, err := tx.LockNode(id)
	if errors.Is(err, storage.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	t, ok := transitionals[n.Status]
	if !ok || !n.StatusExpires.IsZero() {
		return nil
	}
	timeout, err := s.nodeTimeout(tx)
	if err != nil {
		return err
	}
	n.StatusExpires = tx.Now().Add(t.deadline(timeout).Sub(time.Time{}))
	return tx.UpdateNode(&n)
}
