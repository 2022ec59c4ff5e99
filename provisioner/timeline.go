package provisioner

import (
	"context"
	"errors"

	"github.com/ingot-metal/ingot/storage"
)

// Boots are the newest boots of a machine that the caller may see, the newest first.
func (s *Service) Boots(ctx context.Context, systemID string, limit int) ([]storage.Boot, error) {
	if _, err := needUser(ctx); err != nil {
		return nil, err
	}
	var boots []storage.Boot
	err := s.DB.Read(ctx, func(tx *storage.Tx) error {
		n, err := tx.Node(systemID)
		if errors.Is(err, storage.ErrNotFound) || err == nil && n.NodeType != storage.NodeMachine {
			return errNoMachine
		}
		if err != nil {
			return err
		}
		if err := checkPerm(ctx, &n, permView); err != nil {
			return err
		}
		boots, err = tx.Boots(n.ID, limit)
		return err
	})
	return boots, err
}
