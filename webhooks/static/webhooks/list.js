/* In NetBox's lists: takes the selected rows along, or else the filter as the list shows it now. */
'use strict';

// NetBox's quick search leaves the address of the page as it is.
function withQuickSearch(query) {
    const typed = document.getElementById('quicksearch')?.value;
    if (typed) {
        query.set('q', typed);
    }
    return query;
}

document.getElementById('webhooks-redeliver-all')?.addEventListener('click', (event) => {
    const link = event.currentTarget;
    const [address, query] = link.dataset.address.split('?');
    link.href = `${address}?${withQuickSearch(new URLSearchParams(query))}`;
});

document.getElementById('webhooks-subscribe')?.addEventListener('click', (event) => {
    const address = new URL(event.currentTarget.href);
    const [type, query] = address.searchParams.get('filters').split('?');
    address.searchParams.set('filters', `${type}?${withQuickSearch(new URLSearchParams(query))}`);
    event.currentTarget.href = address;
});

document.getElementById('webhooks-send-now')?.addEventListener('submit', (event) => {
    const form = event.currentTarget;
    form.action = `${form.action.split('?')[0]}?${withQuickSearch(new URLSearchParams(window.location.search))}`;
    for (const old of form.querySelectorAll('[name="pk"]')) {
        old.remove();
    }
    if (document.querySelector('#select-all:checked')) {
        return;
    }
    for (const box of document.querySelectorAll('input[name="pk"]:checked')) {
        const copy = document.createElement('input');
        copy.type = 'hidden';
        copy.name = 'pk';
        copy.value = box.value;
        form.append(copy);
    }
});
