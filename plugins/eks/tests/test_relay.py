from htcgrid_eks import cluster, own_pod, relay


def test_a_client_that_asks_kubernetes_for_long_is_not_given_up_before_it_answers() -> None:
    """It looks for so long, and its last look may be a slow one; what it says then is not of the next end."""
    assert own_pod.WAIT_SECONDS + 2 * cluster.REQUEST_SECONDS < relay.ASK_SECONDS
