package provisioner

import (
	"context"
	"log/slog"
	"net/http"
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
	// HTTP reads what users ask for from elsewhere: their public keys. http.DefaultClient when nil.
	HTTP     *http.Client
	KeyHosts KeyHosts
	Images   ImageConfig
}

// Service is the rules. Its methods take the actor from the context, check what it may do, and change the store in one
// transaction each. It is safe for concurrent use.
type Service struct {
	DB       *storage.DB
	Log      *slog.Logger
	Now      func() time.Time
	Content  *content.Store
	Power    map[string]power.Driver // region-side only what Describe tells is used
	DataDir  string
	HTTP     *http.Client
	KeyHosts KeyHosts
	Images   ImageConfig

	access     sync.Map // user id → what the user may do; see AccessOf
	claims     claims   // machines that allocate is about to take
	snapEpoch  snapshotEpoch
	rackHellos sync.Map // system_id → api.RackHello: what each rack last said of itself
	logins     loginGuard
	nonces     nonceSet
}

// New makes the rules over a store.
func New(c Config) *Service {
	s := &Service{DB: c.DB, Log: c.Log, Now: c.Now, Content: c.Content, Power: c.Power, DataDir: c.DataDir,
		HTTP: c.HTTP, KeyHosts: c.KeyHosts, Images: c.Images}
	if s.Log == nil {
		s.Log = slog.New(slog.DiscardHandler)
	}
	if s.Now == nil {
		s.Now = time.Now
	}
	if s.HTTP == nil {
		s.HTTP = http.DefaultClient
	}
	if s.Power == nil {
		s.Power = map[string]power.Driver{}
	}
	if s.DB != nil {
		// A store that cannot be written now says so at every request; the scripts are there after the next start.
		if err := s.loadBuiltins(context.Background()); err != nil {
			s.Log.Error("built-in scripts not stored", "error", err)
		}
	}
	return s
}
