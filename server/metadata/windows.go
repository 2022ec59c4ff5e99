package metadata

import (
	"strings"

	"github.com/ingot-metal/ingot/provisioner"
	"github.com/ingot-metal/ingot/provisioner/preseed/sshkey"
)

// What cloudbase-init's MAAS service asks for beside what cloud-init does. It reads 2012-03-01/meta-data/ to see that the service is there, then
// local-hostname, instance-id, public-keys, x509 and user-data, each with OAuth's PLAINTEXT. An answer of 404 to x509 ends its plugin with
// an error, so no certificates are an empty text. It cannot post the password that it makes up for its account (docs/operating-systems.md).

// publicKeys are the owner's keys, one a line. Python ends lines at more characters than newline, so a comment keeps what is printable.
func publicKeys(id provisioner.Identity) (answer, error) {
	return text(strings.Join(sshkey.Lines(id.SSHKeys), "\n"))
}

// certificates are the owner's certificates for WinRM, in PEM.
func certificates(id provisioner.Identity) (answer, error) {
	return text(strings.Join(id.Certificates, "\n"))
}
