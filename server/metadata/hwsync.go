package metadata

import (
	"net/http"
	"strings"
	"time"

	"github.com/ingot-metal/ingot/provisioner/layout"
	"github.com/ingot-metal/ingot/storage"
)

// hardwareSync is what makes an installed system report its hardware, through the rack that it asks.
func (h *Handler) hardwareSync(r *http.Request, n *storage.Node, interval time.Duration) (*layout.HardwareSync, error) {
	_, token, err := h.p.MachineCredentials(r.Context(), n.SystemID)
	if err != nil {
		return nil, err
	}
	rack := base(r, n)
	arch, _, _ := strings.Cut(n.Architecture, "/")
	return &layout.HardwareSync{Agent: rack + "/machine-resources/" + arch + "/ingot-agent", Interval: interval,
		Preseed: layout.Preseed{MetadataURL: rack + Prefix, StatusURL: rack + Prefix, SystemID: n.SystemID,
			Credentials: layout.Credentials{ConsumerKey: token.ConsumerKey, TokenKey: token.TokenKey, TokenSecret: token.TokenSecret}}}, nil
}
