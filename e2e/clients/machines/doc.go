// Package machines proves Ingot on machines with real firmware: QEMU with SeaBIOS and with OVMF, switched through real IPMI, against a
// region and a rack in processes of their own, driven by a client that others wrote.
package machines
