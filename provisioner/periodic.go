package provisioner

import (
	"context"
	"time"

	"github.com/ingot-metal/ingot/provisioner/jobs"
	"github.com/ingot-metal/ingot/storage"
)

const (
	eventLife = 90 * 24 * time.Hour
	// tombstoneLife is how many changes a deleted node is remembered for; racks that are further behind start over.
	tombstoneLife = 100_000
	neighbourLife = 30 * 24 * time.Hour // since somebody unknown was seen last
	purgeBatch    = 1000
)

// PeriodicTasks are what the region does again and again beside RunLifecycle: it forgets what has served its time.
func (s *Service) PeriodicTasks() []jobs.Task {
	return []jobs.Task{
		{Name: "housekeep", Every: 10 * time.Minute, Run: s.Housekeep},
		{Name: "purge-events", Every: time.Hour, Run: s.purgeEvents},
		{Name: "purge-tombstones", Every: time.Hour, Run: s.purgeTombstones},
		{Name: "purge-neighbours", Every: time.Hour, Run: s.purgeNeighbours},
	}
}

// purgeEvents deletes old events in small transactions: others want to write too.
func (s *Service) purgeEvents(ctx context.Context) error {
	for {
		var n int64
		err := s.DB.Write(ctx, func(tx *storage.Tx) (err error) {
			n, err = tx.PurgeEvents(tx.Now().Add(-eventLife), purgeBatch)
			return err
		})
		if err != nil || n < purgeBatch {
			return err
		}
	}
}

func (s *Service) purgeNeighbours(ctx context.Context) error {
	return s.DB.Write(ctx, func(tx *storage.Tx) error {
		_, err := tx.PurgeNeighbours(tx.Now().Add(-neighbourLife))
		return err
	})
}

func (s *Service) purgeTombstones(ctx context.Context) error {
	return s.DB.Write(ctx, func(tx *storage.Tx) error {
		now, err := tx.CurrentRevision()
		if err != nil || now <= tombstoneLife {
			return err
		}
		return tx.PurgeTombstones(now - tombstoneLife)
	})
}
