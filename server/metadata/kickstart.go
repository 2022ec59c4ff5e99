package metadata

import (
	"net/http"

	"github.com/ingot-metal/ingot/storage"
)

// kickstart answers Anaconda, which has no credentials yet: they are in the document. The region gives it away only while the machine installs
// itself.
func (h *Handler) kickstart(r *http.Request, systemID string) (answer, error) {
	doc, err := h.p.Kickstart(r.Context(), systemID, func(n *storage.Node) string { return base(r, n) })
	if err != nil {
		return answer{}, err
	}
	return text(doc)
}
