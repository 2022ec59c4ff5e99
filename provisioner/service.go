package provisioner

import (
	"log/slog"
	"sync"
	"time"

	"github.com/ingot-metal/ingot/provisioner/content"
	"github.com/ingot-metal/ingot/provisioner/power"
	"github.com/ingot-metal/ingot/storage"
)

// Config is what New needs. DB is required; the rest has usable zero values.
type Config struct {
	DB      *storage.DB
	Log     *slog.Logger     // discards when nil
	Now     func() time.Time // time.Now when nil
	Content *content.Store   // nil: images cannot be uploaded
	Power   map[string]power.Driver
	DataDir string // where the region keeps the admin's key file and the like; empty: nowhere
}

// Service is the rules. Its methods take the actor from the context, check what it may do, and change the store in one
// transaction each. It is safe for concurrent use.
type Service struct {
	DB      *storage.DB
	Log     *slog.Logger
	Now     func() time.Time
	Content *content.Store
	Power   map[string]power.Driver // region-side only what Describe tells is used
	DataDir string

	snapEpoch  snapshotEpoch
	rackHellos sync.Map // system_id → api.RackHello: what each rack last said of itself
	logins     loginGuard
	nonces     nonceSet
}

// New makes the rules over a store.
func New(c Config) *Service {
	s := &Service{DB: c.DB, Log: c.Log, Now: c.Now, Content: c.Content, Power: c.Power, DataDir: c.DataDir}
	if s.Log == nil {
		s.Log = slog.New(slog.DiscardHandler)
	}
	if s.Now == nil {
		s.Now = time.Now
	}
	if s.Power == nil {
		s.Power = map[string]power.Driver{}
	}
	return s
}
