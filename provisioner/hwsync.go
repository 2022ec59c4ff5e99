package provisioner

import (
	"strconv"
	"time"

	"github.com/ingot-metal/ingot/storage"
)

// Hardware sync: an installed system that was deployed with it reports its inventory now and then, by the agent that its rack serves. How often is
// decided at the deployment, and kept with the machine's facts, as is when it last did.
const (
	metaSyncInterval = "hardware_sync_interval" // seconds
	metaLastSync     = "hardware_sync_last"     // RFC 3339
)

// Sync says how a machine's hardware sync stands: every how many seconds, and when it last came, the zero time before the first. 0: it has none.
func Sync(b *storage.Bundle) (interval int64, last time.Time) {
	if !b.Node.EnableHWSync {
		return 0, last
	}
	interval, _ = strconv.ParseInt(b.Metadata[metaSyncInterval], 10, 64) // written by us
	last, _ = time.Parse(time.RFC3339, b.Metadata[metaLastSync])
	return interval, last
}

// syncFacts are the facts of a new deployment.
func (s *Service) syncFacts(tx *storage.Tx, on bool) (map[string]string, error) {
	facts := map[string]string{metaSyncInterval: "", metaLastSync: ""}
	if !on {
		return facts, nil
	}
	text, err := s.settingText(tx, "hardware_sync_interval", "15m")
	if err != nil {
		return nil, err
	}
	interval, err := time.ParseDuration(text)
	if err != nil || interval < time.Minute {
		interval = 15 * time.Minute
	}
	facts[metaSyncInterval] = strconv.FormatInt(int64(interval/time.Second), 10)
	return facts, nil
}

// deployedIdentity adds what only an installed system, or one in memory, is told.
func (s *Service) deployedIdentity(tx *storage.Tx, n *storage.Node, id *Identity) error {
	if id.Ephemeral || !in(n.Status, storage.StatusDeploying, storage.StatusDeployed) {
		return nil
	}
	facts, err := tx.NodeMetadata(n.ID)
	if err != nil {
		return err
	}
	if n.EnableHWSync {
		if seconds, err := strconv.ParseInt(facts[metaSyncInterval], 10, 64); err == nil {
			id.Sync = time.Duration(seconds) * time.Second
		}
	}
	if facts[metaVCenter] == "" || n.OwnerID == nil {
		return nil
	}
	if u, err := tx.User(*n.OwnerID); err != nil || !u.IsSuperuser {
		return ignoreNotFound(err)
	}
	id.VCenter = map[string]string{}
	for _, name := range []string{"vcenter_server", "vcenter_username", "vcenter_password", "vcenter_datacenter"} {
		v, err := s.settingText(tx, name, "")
		if err != nil {
			return err
		}
		if v != "" {
			id.VCenter[name] = v
		}
	}
	return nil
}
