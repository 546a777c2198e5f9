/* Above NetBox's lists: takes the selected rows along, or else the filter as the list shows it now. */
'use strict';

document.getElementById('webhooks-send-now').addEventListener('submit', (event) => {
    const form = event.currentTarget;
    const query = new URLSearchParams(window.location.search);
    // NetBox's quick search leaves the address as it is.
    const typed = document.getElementById('quicksearch')?.value;
    if (typed) {
        query.set('q', typed);
    }
    form.action = `${form.action.split('?')[0]}?${query}`;
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
