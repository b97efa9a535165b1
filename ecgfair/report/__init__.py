"""What a person looks at: pages and figures drawn from arrays, which know neither Lightning nor stores."""
