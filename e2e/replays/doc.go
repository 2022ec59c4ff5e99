// Package replays holds what the clients of MAAS's API really send, byte for byte, and what each needs to read in return: the maas
// command line, python-libmaas, Ansible, Terraform, the Cluster API provider, knife-maas. The clients are not here; their habits
// are. It knows the wire and nothing of how it is served.
package replays
