"""Jobs that several services share: fronts accept them, nodes run them."""
