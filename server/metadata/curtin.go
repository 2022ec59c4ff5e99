package metadata

import (
	"bytes"
	"encoding/base64"
	"net/http"
	"strings"
	"text/template"

	"github.com/ingot-metal/ingot/storage"
)

// installerTemplate runs curtin with the machine's configuration. MAAS's has curtin itself in it; this one takes the environment's, or its
// distribution's. The configuration comes as base64, of which no line can end the text.
var installerTemplate = template.Must(template.New("curtin").Parse(`#!/bin/sh
# Installs this machine with curtin.
set -eu
umask 077
CONFIG="$(mktemp "${TMPDIR:-/tmp}/curtin-config.XXXXXX")"
base64 -d >"$CONFIG" <<'END'
{{.}}
END
if ! command -v curtin >/dev/null 2>&1; then
    if ! { apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -q -y install curtin; }; then
        echo "curtin is not in this environment and cannot be installed: boot one of Ubuntu, with an archive that it reaches." >&2
        exit 1
    fi
fi
exec curtin install --install-deps --config="$CONFIG"
`))

// curtinInstaller answers a program that installs the machine with curtin.
func (h *Handler) curtinInstaller(r *http.Request, n *storage.Node) (answer, error) {
	config, err := h.p.CurtinInstall(r.Context(), n.ID, base(r, n))
	if err != nil {
		return answer{}, err
	}
	var lines []string
	for text := base64.StdEncoding.EncodeToString(config); text != ""; {
		cut := min(76, len(text))
		lines, text = append(lines, text[:cut]), text[cut:]
	}
	var b bytes.Buffer
	err = installerTemplate.Execute(&b, strings.Join(lines, "\n"))
	return answer{http.StatusOK, binary, b.Bytes()}, err
}
