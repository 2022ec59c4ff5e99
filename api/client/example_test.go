package client_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/api/client"
)

// A program that takes a machine with at least 4 GiB, deploys it, waits until it runs, and gives it back.
func Example() {
	region := pretendRegion()
	defer region.Close()
	c, err := client.New(client.Config{URL: region.URL, APIKey: "consumer:token:secret"})
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	m, err := c.MachinesAllocate(ctx, api.MachinesAllocateParams{Mem: []string{"4096"}, Tags: []string{"ssd"}})
	if client.IsStatus(err, http.StatusConflict) {
		log.Fatal("no such machine is free")
	} else if err != nil {
		log.Fatal(err)
	}
	fmt.Println(m.SystemID, m.StatusName)

	m, err = c.MachineDeploy(ctx, api.MachineDeployParams{SystemID: m.SystemID, UserData: client.Ptr("#cloud-config\n")})
	for err == nil && m.StatusName == "Deploying" {
		time.Sleep(time.Millisecond) // some seconds, in earnest
		m, err = c.MachineRead(ctx, api.MachineReadParams{SystemID: m.SystemID})
	}
	if err != nil {
		log.Fatal(err)
	}
	if m.StatusName != "Deployed" {
		log.Fatal(m.ErrorDescription)
	}
	fmt.Println(m.SystemID, m.StatusName)

	if m, err = c.MachineRelease(ctx, api.MachineReleaseParams{SystemID: m.SystemID, Erase: client.Ptr(true)}); err != nil {
		log.Fatal(err)
	}
	fmt.Println(m.SystemID, m.StatusName)
	// Output:
	// abc123 Allocated
	// abc123 Deployed
	// abc123 Disk erasing
}

// An answer that is no success says what was wrong: a text, or messages by field.
func ExampleError() {
	region := pretendRegion()
	defer region.Close()
	c, err := client.New(client.Config{URL: region.URL, APIKey: "consumer:token:secret"})
	if err != nil {
		log.Fatal(err)
	}
	_, err = c.MachinesCreate(context.Background(), api.MachinesCreateParams{Architecture: client.Ptr("sparc")})
	var e *client.Error
	if errors.As(err, &e) {
		fmt.Println(e.Status, e.Fields["architecture"][0])
	}
	_, err = c.MachineRead(context.Background(), api.MachineReadParams{SystemID: "nosuch"})
	fmt.Println(client.IsStatus(err, http.StatusNotFound), err)
	// Output:
	// 400 'sparc' is not a valid architecture.
	// true machine.read: 404 Not Found: No Machine matches the given query.
}

// A program that may be killed at any time takes one machine only: the key is the same each time it runs for the same job.
func ExampleWithIdempotencyKey() {
	region := pretendRegion()
	defer region.Close()
	c, err := client.New(client.Config{URL: region.URL, APIKey: "consumer:token:secret"})
	if err != nil {
		log.Fatal(err)
	}
	ctx := client.WithIdempotencyKey(context.Background(), "job-17-allocate")
	for range 2 {
		m, err := c.MachinesAllocate(ctx, api.MachinesAllocateParams{Mem: []string{"4096"}})
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(m.SystemID)
	}
	// Without the key it would be another machine.
	m, err := c.MachinesAllocate(context.Background(), api.MachinesAllocateParams{Mem: []string{"4096"}})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(m.SystemID)
	// Output:
	// abc123
	// abc123
	// abc124
}

// The region behind mutual TLS: the client shows a certificate, and trusts one authority only.
func ExampleNew_mutualTLS() {
	region := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"username": %q}`, r.TLS.PeerCertificates[0].Subject.CommonName)
	}))
	certificate, authority := pretendCertificate("robot")
	region.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: authority}
	region.StartTLS()
	defer region.Close()
	trusted := x509.NewCertPool() // in earnest: AppendCertsFromPEM of a file
	trusted.AddCert(region.Certificate())

	c, err := client.New(client.Config{
		URL: region.URL, APIKey: "consumer:token:secret",
		TLS: &tls.Config{
			Certificates: []tls.Certificate{certificate}, // in earnest: tls.LoadX509KeyPair
			RootCAs:      trusted,
			MinVersion:   tls.VersionTLS13,
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	me, err := c.UsersWhoami(context.Background(), api.UsersWhoamiParams{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(me.Username)
	// Output: robot
}

// Do makes any call that the operation table describes; the answer stays as it came.
func ExampleClient_Do() {
	region := pretendRegion()
	defer region.Close()
	c, err := client.New(client.Config{URL: region.URL, APIKey: "consumer:token:secret"})
	if err != nil {
		log.Fatal(err)
	}
	ans, err := c.Do(context.Background(), api.Lookup("machine.release"), client.Request{
		Path: map[string]string{"system_id": "abc123"},
		Form: map[string][]string{"comment": {"done"}},
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(ans.Status, ans.ContentType, string(ans.Body))
	// Output: 200 application/json {"system_id": "abc123", "status_name": "Disk erasing"}
}

// pretendRegion stands in for a region, so that the examples run anywhere.
func pretendRegion() *httptest.Server {
	status, taken, keys := "Ready", 122, map[string]string{}
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		id := "abc123"
		switch r.URL.Query().Get("op") {
		case "allocate":
			status = "Allocated"
			key := r.Header.Get("Idempotency-Key")
			if id = keys[key]; id == "" || key == "" {
				taken++
				id = fmt.Sprintf("abc%d", taken)
				keys[key] = id
			}
		case "deploy":
			status = "Deploying"
		case "release":
			status = "Disk erasing"
		default:
			if r.Method == http.MethodPost {
				w.WriteHeader(http.StatusBadRequest)
				_, _ = io.WriteString(w, `{"architecture": ["'sparc' is not a valid architecture."]}`)
				return
			}
			if r.URL.Path == "/MAAS/api/2.0/machines/nosuch/" {
				w.Header().Set("Content-Type", "text/plain")
				w.WriteHeader(http.StatusNotFound)
				_, _ = io.WriteString(w, "No Machine matches the given query.")
				return
			}
			status = "Deployed"
		}
		fmt.Fprintf(w, `{"system_id": %q, "status_name": %q}`, id, status)
	}))
}

// pretendCertificate makes a client's certificate, and the authority that vouches for it.
func pretendCertificate(name string) (tls.Certificate, *x509.CertPool) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		log.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		log.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}
